// SPDX-License-Identifier: MIT
//! Units of the system that vanish when they stop.
//!
//! What `systemd-run` makes has its file in the manager's own directory under /run, which removes
//! it with the unit. A copy, put where files of the administrator go, lets it be started again.
//! Those of users are the users' own to save.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use files::replace_synced;
use step::Root;

/// Where the copies wait. Not under /run: the ledger is not there either, and one directory is
/// enough to be written to. Only root reads them: they have environments.
const KEPT: &str = "/var/lib/nvidia-reload/units/system";

/// Where PID 1 has the files of transient units, and where it looks for the administrator's.
const TRANSIENT: &str = "/run/systemd/transient";
const ADMINISTRATOR: &str = "/run/systemd/system";

/// Keeps the file of a unit that would vanish; others need no copy.
pub(crate) fn save(root: &Root, name: &str, fragment: &str) -> Result<()> {
    if name.contains('/') || Path::new(fragment) != Path::new(TRANSIENT).join(name) {
        return Ok(());
    }
    let (from, to) = (root.path(fragment), copy_of(root, name));
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(root.path(KEPT))
        .and_then(|()| sync(&root.path(KEPT)))
        .with_context(|| format!("create {KEPT}"))?;
    // On disk before the intent that relies on it: after a power cut both are there, or the unit was not stopped.
    let copy = || {
        let mode = fs::metadata(&from)?.mode() & 0o777;
        replace_synced(&to, mode, &fs::read(&from)?)
    };
    copy().with_context(|| format!("keep a copy of {}", from.display()))
}

/// Syncs what names a directory that may be new: those that it is in, up to the ledger's.
fn sync(directory: &Path) -> io::Result<()> {
    directory.ancestors().skip(1).take(2).try_for_each(|parent| File::open(parent)?.sync_all())
}

/// Puts a saved file where its manager finds it; false if there is none.
pub(crate) fn revive(root: &Root, name: &str) -> io::Result<bool> {
    let from = copy_of(root, name);
    if name.contains('/') || !from.exists() {
        return Ok(false);
    }
    let directory = root.path(ADMINISTRATOR);
    fs::create_dir_all(&directory)?;
    // The manager looks for files it does not know where the time of a directory has changed, so
    // nothing has to be reloaded.
    fs::copy(&from, directory.join(name))?;
    Ok(true)
}

/// Removes the copy of a unit.
pub(crate) fn forget(root: &Root, name: &str) {
    if !name.contains('/') {
        // What is left over is overwritten by the next copy.
        let _ = fs::remove_file(copy_of(root, name));
    }
}

fn copy_of(root: &Root, name: &str) -> PathBuf {
    root.path(KEPT).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transient_unit_comes_back_where_its_manager_looks() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let transient = "/run/systemd/transient/job.service";
        let file = root.path(transient);
        fs::create_dir_all(file.parent().expect("has a parent")).expect("creates");
        fs::write(&file, "[Service]\n").expect("writes");
        save(&root, "job.service", transient).expect("saves");
        fs::remove_file(&file).expect("removes");
        assert!(revive(&root, "job.service").expect("revives"));
        let back = root.path("/run/systemd/system/job.service");
        assert_eq!(fs::read_to_string(back).expect("is back"), "[Service]\n");
        forget(&root, "job.service");
        assert!(!revive(&root, "job.service").expect("looks"));
    }

    #[test]
    fn a_copy_is_whole_or_the_one_of_before() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let transient = "/run/systemd/transient/job.service";
        let file = root.path(transient);
        fs::create_dir_all(file.parent().expect("has a parent")).expect("creates");
        fs::write(&file, "[Service]\n").expect("writes");
        save(&root, "job.service", transient).expect("saves");
        // Another name for the previous file: written over in place, a power cut could leave half of it.
        let before = directory.path().join("before");
        fs::hard_link(copy_of(&root, "job.service"), &before).expect("links");
        fs::write(&file, "[Service]\nExecStart=/bin/true\n").expect("writes");
        save(&root, "job.service", transient).expect("saves");
        assert_eq!(fs::read_to_string(before).expect("reads"), "[Service]\n");
        let copy = copy_of(&root, "job.service");
        assert_eq!(fs::read(&copy).expect("reads"), fs::read(&file).expect("reads"));
        assert_eq!(fs::read_dir(root.path(KEPT)).expect("lists").count(), 1, "nothing is left beside it");
        fs::remove_file(&file).expect("removes");
        save(&root, "job.service", transient).expect_err("there is nothing to save");
    }

    #[test]
    fn an_installed_unit_needs_no_copy_and_a_path_is_no_name() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for (name, fragment) in [
            ("job.service", "/usr/lib/systemd/system/job.service"),
            ("job.service", "/run/systemd/transient/../../../etc/shadow"),
            ("../../../etc/shadow", "/run/systemd/transient/../../../etc/shadow"),
            ("/etc/shadow", "/etc/shadow"),
        ] {
            save(&root, name, fragment).expect("does nothing");
            assert!(!revive(&root, name).expect("looks"), "{name}");
        }
    }
}
