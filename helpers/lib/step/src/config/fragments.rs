// SPDX-License-Identifier: MIT
//! The files of the configuration: where they are, how one wins over another, and where in one a fault is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::Root;

/// The files to read, in order.
pub(super) fn fragments(root: &Root) -> Result<Vec<PathBuf>> {
    const DIRECTORIES: [&str; 2] = ["/usr/lib/nvidia-reload", "/etc/nvidia-reload"];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut by_name = BTreeMap::new();
    for directory in DIRECTORIES.map(|directory| root.path(directory)) {
        let main = directory.join("config.toml");
        if exists(&main)? {
            files.push(main);
        }
        let fragments = directory.join("conf.d");
        if !exists(&fragments)? {
            continue;
        }
        for entry in fs::read_dir(&fragments).with_context(|| format!("read {}", fragments.display()))? {
            let path = entry.with_context(|| format!("read {}", fragments.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                by_name.insert(path.file_name().map(ToOwned::to_owned), path);
            }
        }
    }
    files.extend(by_name.into_values());
    Ok(files)
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| format!("look for {}", path.display()))
}

/// `FILE:LINE: what stands there: why`. The library's own text is a picture of several lines, which neither a line of
/// the journal nor an error of the command can show.
pub(super) fn in_a_line(path: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let why = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(at) = error.span().map(|span| span.start.min(text.len())) else {
        return anyhow!("{}: {why}", path.display());
    };
    let before = text.as_bytes().get(..at).unwrap_or_default();
    let number = before.iter().filter(|byte| **byte == b'\n').count();
    let line: String = text.lines().nth(number).unwrap_or_default().trim().chars().take(60).collect();
    match line.is_empty() {
        true => anyhow!("{}:{}: {why}", path.display(), number + 1),
        false => anyhow!("{}:{}: `{line}`: {why}", path.display(), number + 1),
    }
}

/// Puts the values of `from` into `into`, key by key.
pub(super) fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
