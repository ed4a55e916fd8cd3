// SPDX-License-Identifier: MIT
//! A closed run in the history, without what is not needed any more.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use files::{check_owner, replace_synced};

use crate::record::{Event, Record};

/// How many closed runs are kept.
pub(crate) const HISTORY: usize = 50;

/// What is saved beside a run's record ends with this instead of `.jsonl`.
pub(crate) const FAILURE: &str = "failure.json";

/// The name of a run's record in the history.
pub(crate) fn name(opened_usec: u64, id: &str) -> String {
    format!("{opened_usec:020}-{id}.jsonl")
}

/// Moves the ledger `from` to `to`. Definitions of containers have their environments in them, and are of use
/// only until the container is there again.
pub(crate) fn retire(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    // What was reserved for the run is free again.
    OpenOptions::new()
        .write(true)
        .open(from)
        .and_then(|file| file.set_len(text.len() as u64))
        .with_context(|| format!("truncate {}", from.display()))?;
    match without_secrets(&text)? {
        None => fs::rename(from, to).with_context(|| format!("move the ledger to {}", to.display()))?,
        Some(text) => {
            replace_synced(to, 0o600, &text).with_context(|| format!("write {}", to.display()))?;
            fs::remove_file(from).with_context(|| format!("remove {}", from.display()))?;
        }
    }
    Ok(())
}

/// The lines without definitions; none where they have none.
fn without_secrets(text: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut found = false;
    let mut clean = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Record { event: Event::Intent { id, step, object }, v, run, boot, realtime_usec }) => {
                let bare = object.clone().without_secrets();
                found |= bare != object;
                let event = Event::Intent { id, step, object: bare };
                let record = Record { v, run, boot, realtime_usec, event };
                serde_json::to_writer(&mut clean, &record).context("encode a line of the ledger")?;
                clean.push(b'\n');
            }
            _ => clean.extend_from_slice(line),
        }
    }
    Ok(found.then_some(clean))
}

/// Closed runs, oldest first: their names begin with the time.
pub(crate) fn closed(history: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(history) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", history.display())),
    };
    check_owner(history)?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", history.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Removes all but the last ones, and what is saved beside a record that is not there.
pub(crate) fn prune(history: &Path) -> Result<()> {
    let mut closed = closed(history)?;
    let rest = closed.split_off(closed.len().saturating_sub(HISTORY));
    let mut old = closed;
    for entry in fs::read_dir(history).with_context(|| format!("read {}", history.display()))? {
        let path = entry.with_context(|| format!("read {}", history.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix(FAILURE)
            && !rest.contains(&path.with_file_name(format!("{stem}jsonl")))
        {
            old.push(path);
        }
    }
    for old in old {
        fs::remove_file(&old).with_context(|| format!("remove {}", old.display()))?;
    }
    Ok(())
}
