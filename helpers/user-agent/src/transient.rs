// SPDX-License-Identifier: MIT
//! Units that vanish when they stop.
//!
//! What `systemd-run --user` makes has its file in the manager's own directory, which removes it with the
//! unit. A copy in the user's runtime directory lets it be started again. All of it is the user's, and so
//! is this process: a link leads nowhere that the user could not write to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use as_user::is_unit_name;

/// Saves the file of a unit that would vanish; others need no copy.
pub(crate) fn save(uid: u32, name: &str, fragment: &str) -> io::Result<()> {
    save_in(&runtime(uid), name, fragment)
}

fn save_in(runtime: &Path, name: &str, fragment: &str) -> io::Result<()> {
    let file = runtime.join("systemd/transient").join(name);
    if !is_unit_name(name) || Path::new(fragment) != file {
        return Ok(());
    }
    put(&file, &saved(runtime, name))
}

/// Puts a saved file where the manager finds it; false if there is none.
pub(crate) fn restore(uid: u32, name: &str) -> io::Result<bool> {
    restore_in(&runtime(uid), name)
}

fn restore_in(runtime: &Path, name: &str) -> io::Result<bool> {
    // The manager looks for files it does not know where the time of a directory has changed, so nothing
    // has to be reloaded.
    match put(&saved(runtime, name), &runtime.join("systemd/user").join(name)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Forgets what was saved of a unit.
pub(crate) fn forget(uid: u32, name: &str) {
    if is_unit_name(name) {
        // What is left over is overwritten by the next copy.
        let _ = fs::remove_file(saved(&runtime(uid), name));
    }
}

/// Copies a file. A link at the end is replaced, not followed.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    let text = fs::read(from)?;
    let folder = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let beside = folder.join(".nvidia-reload");
    files::remove(&beside)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
    io::Write::write_all(&mut file, &text)?;
    fs::rename(&beside, to)
}

fn saved(runtime: &Path, name: &str) -> PathBuf {
    runtime.join("nvidia-reload").join(name)
}

fn runtime(uid: u32) -> PathBuf {
    PathBuf::from(format!("/run/user/{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn runtime_with(name: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("systemd/transient").join(name);
        fs::create_dir_all(file.parent().expect("has a parent")).expect("creates");
        fs::write(&file, "[Service]\n").expect("writes");
        (directory, file)
    }

    #[test]
    fn a_transient_unit_comes_back_where_its_manager_looks() {
        let (directory, file) = runtime_with("job.service");
        let runtime = directory.path();
        save_in(runtime, "job.service", file.to_str().expect("is text")).expect("saves");
        fs::remove_file(&file).expect("removes");
        // Whatever is there, it is the user's own; and what it leads to is not written.
        fs::create_dir_all(runtime.join("systemd/user")).expect("creates");
        let victim = runtime.join("victim");
        symlink(&victim, runtime.join("systemd/user/job.service")).expect("links");
        assert!(restore_in(runtime, "job.service").expect("restores"));
        assert_eq!(
            fs::read_to_string(runtime.join("systemd/user/job.service")).expect("is back"),
            "[Service]\n"
        );
        assert!(!victim.exists(), "the link was followed");
    }

    #[test]
    fn only_what_the_manager_made_is_saved() {
        let (directory, file) = runtime_with("job.service");
        let runtime = directory.path();
        let outside = runtime.join("systemd/transient/../../victim");
        fs::write(&outside, "x").expect("writes");
        for (name, fragment) in [
            ("job.service", "/usr/lib/systemd/user/job.service"),
            ("../../victim", outside.to_str().expect("is text")),
            ("other.service", file.to_str().expect("is text")),
        ] {
            save_in(runtime, name, fragment).expect("does nothing");
            assert!(!restore_in(runtime, "job.service").expect("looks"), "{name} {fragment}");
        }
    }
}
