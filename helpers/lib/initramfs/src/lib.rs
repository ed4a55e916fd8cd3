// SPDX-License-Identifier: MIT
//! What the initramfs of the running kernel holds of the driver, as it was read last.
//!
//! Modules in it are loaded before the root file system is mounted, so an old copy loads the old driver at the next
//! boot. Reading an archive takes seconds, so the result is saved with the file's size and times, and is used while
//! these are the same.

#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use files::replace;
use modules::Disk;
use serde::{Deserialize, Serialize};
use step::Root;

mod find;
mod unified;

pub use find::{archives, maker, not_found};
pub use unified::open;

/// Where it is saved.
const PATH: &str = "/var/lib/nvidia-reload/initramfs.json";

/// The name and version of the JSON there.
const SCHEMA: &str = "nvidia-reload.initramfs/2";

/// A module of the driver in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// The name that it has once it is loaded.
    pub name: String,
    /// Its path in the archive.
    pub path: String,
    /// `modinfo -F version`.
    pub version: Option<String>,
    /// `modinfo -F srcversion`.
    pub srcversion: Option<String>,
}

/// The marks of a file: another one in its place has others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Marks {
    /// Those of the file `path`.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        Ok(Self { inode: found.ino(), size: found.size(), changed: (found.ctime(), found.ctime_nsec()) })
    }
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The archive.
    pub archive: PathBuf,
    marks: Marks,
    /// The driver's modules in it.
    pub modules: Vec<Packed>,
}

impl Contents {
    /// What was seen in `archive` when it had these marks.
    pub fn new(archive: PathBuf, marks: Marks, modules: Vec<Packed>) -> Self {
        Self { archive, marks, modules }
    }

    /// The modules that are not the ones on disk.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn stale(&self, disk: &Disk) -> Result<Vec<Packed>> {
        let mut stale = Vec::new();
        for packed in &self.modules {
            let same =
                |file: modules::File| file.version == packed.version && file.srcversion == packed.srcversion;
            if !disk.find(&packed.name)?.is_some_and(same) {
                stale.push(packed.clone());
            }
        }
        Ok(stale)
    }
}

/// What is saved: one entry for each archive.
#[derive(Serialize, Deserialize)]
struct Record {
    schema: String,
    archives: Vec<Contents>,
}

/// Saves what was seen in all archives, for what asks until they change.
///
/// # Errors
/// It cannot be written.
pub fn save(root: &Root, archives: Vec<Contents>) -> Result<()> {
    let path = root.path(PATH);
    let record = Record { schema: SCHEMA.into(), archives };
    let text = serde_json::to_vec_pretty(&record).context("encode what the initramfs holds")?;
    replace(&path, 0o644, &text).with_context(|| format!("write {}", path.display()))
}

/// What was seen last of `archive`; none where it was never looked at, or has changed since.
///
/// # Errors
/// The archive cannot be looked at.
pub fn seen(root: &Root, archive: &Path) -> Result<Option<Contents>> {
    let path = root.path(PATH);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    // What another version wrote is as good as nothing: it is looked at again.
    let Ok(record) = serde_json::from_slice::<Record>(&text) else { return Ok(None) };
    let seen = record.archives.into_iter().find(|seen| record.schema == SCHEMA && seen.archive == archive);
    match seen {
        Some(seen) if seen.marks == Marks::of(archive)? => Ok(Some(seen)),
        _ => Ok(None),
    }
}

/// There while the initramfs is known to match the disk: a condition of the unit that would look
/// into it.
pub const MATCHES: &str = "/run/nvidia-reload/initramfs-matches";

/// Notes whether the initramfs is known to match `disk`.
///
/// # Errors
/// It is not known, and is not noted as known then; or the note cannot be written.
pub fn note(root: &Root, disk: &Disk) -> Result<()> {
    let note = root.path(MATCHES);
    files::remove(&note).with_context(|| format!("remove {}", note.display()))?;
    let archives = archives(root, &modules::release(root)?)?;
    // It may be somewhere else, or the machine may have none: that is not known.
    let mut matches = !archives.is_empty();
    for archive in archives {
        matches &= match seen(root, &archive)? {
            Some(seen) => seen.stale(disk)?.is_empty(),
            None => false,
        };
    }
    if matches {
        fs::write(&note, "").with_context(|| format!("write {}", note.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_noted_as_a_match() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let release = modules::release(&root).expect("runs");
        for path in ["/boot", "/var/lib/nvidia-reload", "/run/nvidia-reload"] {
            fs::create_dir_all(root.path(path)).expect("creates");
        }
        let disk = Disk::open(&root).expect("opens");
        let noted = || {
            note(&root, &disk).expect("notes");
            root.path(MATCHES).exists()
        };
        assert!(!noted(), "none was found");
        let archive = root.path("/boot").join(format!("initrd.img-{release}"));
        fs::write(&archive, "a").expect("writes");
        assert!(!noted(), "it was not looked at");
        let seen = |modules| Contents::new(archive.clone(), Marks::of(&archive).expect("looks"), modules);
        save(&root, vec![seen(Vec::new())]).expect("writes");
        assert!(noted(), "it holds nothing of the driver");
        let packed =
            Packed { name: "nvidia".into(), path: "a".into(), version: Some("1".into()), srcversion: None };
        save(&root, vec![seen(vec![packed])]).expect("writes");
        assert!(!noted(), "the disk has no such module");
        save(&root, vec![seen(Vec::new())]).expect("writes");
        fs::create_dir_all(root.path("/boot/efi/EFI/Pop_OS-0")).expect("creates");
        fs::write(root.path("/boot/efi/EFI/Pop_OS-0/initrd.img"), "a").expect("writes");
        assert!(!noted(), "the boot loader has a copy, and that was not looked at");
    }

    #[test]
    fn what_was_seen_holds_until_the_archive_changes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for path in ["/boot", "/var/lib/nvidia-reload"] {
            fs::create_dir_all(root.path(path)).expect("creates");
        }
        fs::write(root.path("/boot/initrd.img-6.1"), "a").expect("writes");
        let path = archives(&root, "6.1").expect("looks").remove(0);
        assert_eq!(seen(&root, &path).expect("reads"), None);
        let first = Contents::new(path.clone(), Marks::of(&path).expect("looks"), Vec::new());
        save(&root, vec![first.clone()]).expect("writes");
        assert_eq!(seen(&root, &path).expect("reads"), Some(first));
        fs::write(&path, "ab").expect("writes");
        assert_eq!(seen(&root, &path).expect("reads"), None);
    }

    #[test]
    fn it_is_found_in_every_layout_that_has_one() {
        golden::compare(&["initramfs"], |machine| {
            let root = &machine.root;
            let release = modules::release(root).expect("is known");
            let found = archives(root, &release).expect("looks");
            if found.is_empty() && !root.path("/boot").exists() {
                return String::new();
            }
            let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
            let text = if names.is_empty() { "not found".to_owned() } else { names.join(", ") };
            machine.line("initramfs", &text)
        });
    }
}
