// SPDX-License-Identifier: MIT
//! A lock that only root can take, and that is waited for with a limit.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, major, minor};

/// How often a lock that is held is tried again.
const INTERVAL: Duration = Duration::from_millis(20);

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It was held for the whole time.
    #[error("{} is still locked by {holder} after {} s", path.display(), limit.as_secs())]
    Held {
        /// The file.
        path: PathBuf,
        /// The process that holds it, as far as the kernel tells.
        holder: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The file cannot be opened or locked.
    #[error("lock {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Takes the lock on the file `path`, which is made where it is not there: only root can open it, since
/// each process that can open a file can lock it for any time.
///
/// Where another process holds it, `waiting` is called once with what is waited for and the limit.
///
/// # Errors
/// It is still held after `limit`, or the file cannot be opened.
pub fn lock(path: &Path, limit: Duration, waiting: impl FnOnce(&str)) -> Result<File, LockError> {
    let failed = |source| LockError::Io { path: path.to_owned(), source };
    let file = open(path).map_err(failed)?;
    let end = Instant::now() + limit;
    let mut waiting = Some(waiting);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if Instant::now() >= end {
            return Err(LockError::Held { path: path.to_owned(), holder: holder(&file), limit });
        }
        if let Some(waiting) = waiting.take() {
            let (holder, seconds) = (holder(&file), limit.as_secs());
            waiting(&format!(
                "waiting for the lock {}, held by {holder}, at most {seconds} s",
                path.display()
            ));
        }
        sleep(INTERVAL);
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// The process that holds a lock on `file`, in words (proc_locks(5)).
fn holder(file: &File) -> String {
    let unknown = || "an unknown process".to_owned();
    let Ok(data) = file.metadata() else { return unknown() };
    let id = format!("{:02x}:{:02x}:{}", major(data.dev()), minor(data.dev()), data.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // A waiting one has an arrow in the second place.
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&id.as_str())).then(|| words[4].to_owned())
    });
    let Some(pid) = pid else { return unknown() };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(60);

    #[test]
    fn a_lock_that_is_held_is_waited_for_and_then_given_up_by_name() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("lock");
        let silent = |said: &str| panic!("it is free: {said}");
        let held = lock(&path, SHORT, silent).expect("locks");
        let mut said = String::new();
        let error = lock(&path, SHORT, |text| said = text.to_owned()).expect_err("is held").to_string();
        assert!(error.contains("lock is still locked by process "), "{error}");
        assert!(said.starts_with("waiting for the lock ") && said.ends_with("at most 0 s"), "{said}");
        let release = std::thread::spawn(move || {
            sleep(SHORT);
            drop(held);
        });
        lock(&path, Duration::from_secs(60), |_| ()).expect("is let go");
        release.join().expect("ends");
    }

    #[test]
    fn no_other_user_can_open_it_and_no_link_is_followed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("lock");
        fs::write(&path, "").expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("sets");
        lock(&path, SHORT, |_| ()).expect("locks");
        assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("links");
        assert!(matches!(lock(&link, SHORT, |_| ()), Err(LockError::Io { .. })));
    }
}
