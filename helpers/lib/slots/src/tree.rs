// SPDX-License-Identifier: MIT
//! Paths below a root: links followed one by one, directories without links.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use step::Root;

/// The kernel follows forty; no driver needs as many.
const HOPS: usize = 16;

/// `path` with the links in its directories followed, itself not; as the absolute path below `root`.
/// None where its directory is not there.
pub(crate) fn plain(root: &Root, path: &Path) -> Option<PathBuf> {
    let base = root.path("/").canonicalize().ok()?;
    let parent = root.path(path).parent()?.canonicalize().ok()?;
    Some(Path::new("/").join(parent.strip_prefix(base).ok()?).join(path.file_name()?))
}

/// Links, each with what it says.
pub(crate) type Links = Vec<(PathBuf, PathBuf)>;

/// The links from `path` on, each with what it says, and the file that they lead to; none where they
/// lead nowhere. A regular file is where its own path leads.
///
/// # Errors
/// Something on the way cannot be looked at.
pub(crate) fn follow(root: &Root, path: &Path) -> Result<(Links, Option<PathBuf>)> {
    let mut links = Vec::new();
    let Some(mut at) = plain(root, path) else { return Ok((links, None)) };
    for _ in 0..HOPS {
        let real = root.path(&at);
        let data = match fs::symlink_metadata(&real) {
            Ok(data) => data,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((links, None)),
            Err(error) => return Err(error).with_context(|| format!("look at {}", real.display())),
        };
        if data.is_file() {
            return Ok((links, Some(at)));
        }
        if !data.is_symlink() {
            return Ok((links, None));
        }
        let target = fs::read_link(&real).with_context(|| format!("read the link {}", real.display()))?;
        let next = at.parent().unwrap_or(Path::new("/")).join(&target);
        links.push((at, target));
        match plain(root, &next) {
            Some(next) => at = next,
            None => return Ok((links, None)),
        }
    }
    Ok((links, None))
}

/// What is in `directory`, sorted; nothing where there is no such directory.
///
/// # Errors
/// It is there and cannot be read.
pub(crate) fn list(root: &Root, directory: &Path) -> Result<Vec<PathBuf>> {
    let real = root.path(directory);
    let entries = match fs::read_dir(&real) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", real.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", real.display()))?;
        found.push(directory.join(entry.file_name()));
    }
    found.sort();
    Ok(found)
}

/// All that is in `directory` and in the directories below it, these themselves left out.
///
/// # Errors
/// A directory cannot be read.
pub(crate) fn walk(root: &Root, directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut todo) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = todo.pop() {
        for path in list(root, &directory)? {
            match fs::symlink_metadata(root.path(&path)) {
                Ok(data) if data.is_dir() => todo.push(path),
                _ => found.push(path),
            }
        }
    }
    Ok(found)
}
