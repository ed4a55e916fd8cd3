// SPDX-License-Identifier: MIT
//! One file into a slot or out of it: cheap where the file system can, and never half.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::room;

/// Set-user-ID and set-group-ID.
const SET_ID: u32 = 0o6000;

/// What a copy has of a file's mode: it runs as no other user, and only root writes to it.
const MODE: u32 = 0o755;

/// Write permission for group and others.
const OTHERS: u32 = 0o022;

/// Puts a copy of `from` at `to`, which must not be there, and returns its checksum.
///
/// A reflink shares the blocks until somebody writes. A hard link (`linked`) shares them for ever, so
/// it is only for files whose owner replaces them by a rename, and never for a program that runs as
/// somebody else: the old one would stay within everybody's reach when the upgrade has fixed it.
///
/// Where no blocks can be shared there has to be room for `rest` bytes: this file and all that follow.
///
/// # Errors
/// It cannot be copied, or changed meanwhile.
pub(crate) fn save(from: &Path, to: &Path, linked: bool, rest: u64) -> Result<String> {
    let before = fs::symlink_metadata(from).with_context(|| format!("look at {}", from.display()))?;
    if linked && may_link(before.mode()) && fs::hard_link(from, to).is_ok() {
        return checksum(to);
    }
    let sum = copy(from, to, before.mode() & MODE, rest.max(before.size()))?;
    let after = fs::symlink_metadata(from).with_context(|| format!("look at {}", from.display()))?;
    let same = |data: &fs::Metadata| (data.ino(), data.size(), data.mtime(), data.mtime_nsec());
    if same(&before) != same(&after) {
        bail!("{} changed while it was copied", from.display());
    }
    Ok(sum)
}

/// Shares `from`, a file of another slot with the checksum `sum`, as `to`. None where that cannot be, or it is not
/// `real` any more.
pub(crate) fn share(real: &Path, from: &Path, to: &Path, sum: &str) -> Option<String> {
    fs::hard_link(from, to).ok()?;
    match (checksum(real), checksum(to)) {
        (Ok(wanted), Ok(now)) if wanted == sum && now == sum => Some(now),
        _ => {
            // Else the copy finds it there.
            let _ = fs::remove_file(to);
            None
        }
    }
}

/// Whether a file of this mode may be shared by a hard link, see [`save`].
pub(crate) fn may_link(mode: u32) -> bool {
    mode & (SET_ID | OTHERS) == 0
}

/// Copies `from` to the new file `to` by a reflink, else byte by byte if there is room for `room` bytes and a
/// margin, 0 for whatever there is; returns the copy's checksum.
///
/// # Errors
/// It cannot be read or written, or there is no room.
pub(crate) fn copy(from: &Path, to: &Path, mode: u32, room: u64) -> Result<String> {
    let act = || format!("copy {} to {}", from.display(), to.display());
    let mut source = File::open(from).with_context(act)?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(mode).open(to).with_context(act)?;
    if rustix::fs::ioctl_ficlone(&copy, &source).is_ok() {
        return checksum(to);
    }
    if room > 0 {
        room::ask(to, room)?;
    }
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let length = source.read(&mut chunk).with_context(act)?;
        if length == 0 {
            return Ok(text(hash));
        }
        hash.update(&chunk[..length]);
        copy.write_all(&chunk[..length]).with_context(act)?;
    }
}

/// The SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// It cannot be read.
pub(crate) fn checksum(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).with_context(|| format!("read {}", path.display()))? {
            0 => return Ok(text(hash)),
            length => hash.update(&chunk[..length]),
        }
    }
}

fn text(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the file `path` what it was: owner, permissions and time of change.
///
/// # Errors
/// One of them cannot be set.
pub(crate) fn set_metadata(path: &Path, uid: u32, gid: u32, mode: u32, modified_nsec: i64) -> Result<()> {
    let act = || format!("set owner and mode of {}", path.display());
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).with_context(act)?;
    // After the owner, whose change takes the set-user-ID bit away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(act)?;
    let file = File::open(path).with_context(act)?;
    file.set_modified(time(modified_nsec)).with_context(act)
}

fn time(nsec: i64) -> SystemTime {
    let distance = Duration::from_nanos(nsec.unsigned_abs());
    if nsec < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// Waits until all that was written to the file system of `path` is on disk: one wait rather than one
/// for each of some hundred files.
///
/// # Errors
/// The disk failed.
pub(crate) fn sync(path: &Path) -> Result<()> {
    let place = File::open(path).with_context(|| format!("open {}", path.display()))?;
    rustix::fs::syncfs(&place).with_context(|| format!("sync the file system of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_link_is_made_only_where_it_may_be() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("a"), "abc").expect("writes");
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let inode = |name: &str| fs::metadata(at(name)).expect("is there").ino();
        assert_eq!(save(&at("a"), &at("linked"), true, 3).expect("links"), sum);
        assert_eq!(inode("linked"), inode("a"));
        assert_eq!(save(&at("a"), &at("copied"), false, 3).expect("copies"), sum);
        assert_ne!(inode("copied"), inode("a"));
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o4755)).expect("sets");
        save(&at("a"), &at("copied too"), true, 3).expect("copies");
        assert_ne!(inode("copied too"), inode("a"));
        assert_eq!(fs::metadata(at("copied too")).expect("is there").mode() & 0o7777, 0o755);
        for (mode, copy) in [(0o600, 0o600), (0o2664, 0o644), (0o775, 0o755)] {
            fs::set_permissions(at("a"), fs::Permissions::from_mode(mode)).expect("sets");
            save(&at("a"), &at(&format!("{mode:o}")), mode != 0o600, 3).expect("copies");
            let data = fs::metadata(at(&format!("{mode:o}"))).expect("is there");
            assert_eq!((data.mode() & 0o7777, data.nlink()), (copy, 1), "{mode:o}");
        }
        assert!(save(&at("a"), &at("copied"), false, 3).is_err(), "never over another file");
        let error =
            room::ask(&at("not/there/yet"), 1 << 60).expect_err("no file system has that").to_string();
        assert!(error.contains("MiB free, and 1099511627840 are needed"), "{error}");
        room::ask(&at("a"), 0).expect("the test writes here");
    }

    #[test]
    fn a_file_gets_back_its_mode_and_time() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("a");
        fs::write(&path, "abc").expect("writes");
        let own = fs::metadata(&path).expect("is there");
        set_metadata(&path, own.uid(), own.gid(), 0o4751, 1_500_000_000_123_456_789).expect("sets");
        let data = fs::metadata(&path).expect("is there");
        assert_eq!(data.mode() & 0o7777, 0o4751);
        assert_eq!(crate::attributes::modified_nsec(&data), 1_500_000_000_123_456_789);
    }
}
