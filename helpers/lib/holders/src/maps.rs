// SPDX-License-Identifier: MIT
//! `/proc/PID/maps`: mappings of devices, which may outlive every descriptor.
//!
//! The device and inode in a line are those of the node's file system, not the number of the
//! device. `/proc/PID/map_files/RANGE` leads to the mapped file itself; looking there for every
//! mapping of every process would be dear, so each distinct file is looked at once a scan.

use crate::device::Rdev;
use crate::walk::{Scratch, Stat, stat};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// How many files a reader keeps in mind, and how long their names may be.
const MOST_KNOWN: usize = 4096;
const LONGEST_KNOWN: usize = 512;

/// One line of `maps` that has a file behind it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// `START-END`, as written.
    range: &'a [u8],
    /// Device, inode and path: the same for every mapping of one file.
    file: &'a [u8],
    dev: &'a [u8],
    inode: &'a [u8],
    /// As the kernel shows it: newlines as `\012`, ` (deleted)` at the end of what is gone.
    pub(crate) path: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line; `None` for anonymous memory and for what is no line.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let space = |text: &[u8]| text.iter().position(|byte| *byte == b' ');
        let (range, rest) = line.split_at(space(line)?);
        let rest = &rest[1..];
        let rest = &rest[space(rest)? + 1..];
        let file = &rest[space(rest)? + 1..];
        let (dev, rest) = file.split_at(space(file)?);
        let rest = &rest[1..];
        let (inode, path) = rest.split_at(space(rest).unwrap_or(rest.len()));
        if inode == b"0" || inode.is_empty() {
            return None;
        }
        Some(Self { range, file, dev, inode, path: path.trim_ascii_start() })
    }

    /// Its name in `map_files`, where numbers have no leading zeros.
    pub(crate) fn range_name(&self) -> Option<String> {
        let text = std::str::from_utf8(self.range).ok()?;
        let (start, end) = text.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(format!("{:x}-{:x}", number(start)?, number(end)?))
    }

    /// The number of the device mapped here; `None` if it is no device.
    fn device(&self, process: BorrowedFd<'_>) -> Option<Rdev> {
        let by_range = self
            .range_name()
            .and_then(|range| stat(process, PathBuf::from(format!("map_files/{range}"))).ok());
        // Without privilege map_files cannot be followed. The node the path leads to counts if
        // it is the file that is mapped.
        let found = by_range.or_else(|| self.by_path(process))?;
        found.is_char_device().then_some(found.rdev)
    }

    fn by_path(&self, process: BorrowedFd<'_>) -> Option<Stat> {
        let path = self.path.strip_suffix(b" (deleted)").unwrap_or(self.path);
        if !path.starts_with(b"/") {
            return None;
        }
        let mut below = b"root".to_vec();
        below.extend_from_slice(path);
        let found = stat(process, std::ffi::OsStr::from_bytes(&below)).ok()?;
        let inode = std::str::from_utf8(self.inode).ok()?.parse::<u64>().ok()?;
        let (major, minor) = std::str::from_utf8(self.dev).ok()?.split_once(':')?;
        let number = |text| u32::from_str_radix(text, 16).ok();
        let dev = Rdev { major: number(major)?, minor: number(minor)? };
        (found.ino == inode && found.dev == dev).then_some(found)
    }
}

/// Calls `each` with the device number and the path of every mapping of a device in the process
/// whose directory is `process`, until it returns false. Tells whether there is a map at all:
/// threads of the kernel and tasks that have ended have none.
///
/// # Errors
/// When the map cannot be read: no permission, no such process.
pub(crate) fn each_device(
    process: impl AsFd,
    maps: impl rustix::path::Arg,
    scratch: &mut Scratch,
    mut each: impl FnMut(Rdev, &[u8]) -> bool,
) -> rustix::io::Result<bool> {
    let process = process.as_fd();
    let file = openat(process, maps, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let Scratch { text, mapped, .. } = scratch;
    let mut filled = 0;
    let mut any = false;
    loop {
        // A line longer than the buffer: paths end at 4096 bytes, escaped at four times that.
        if filled == text.len() {
            filled = 0;
        }
        let got = match read(&file, &mut text[filled..]) {
            Ok(0) | Err(Errno::SRCH) => return Ok(any),
            Ok(got) => got,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        any = true;
        filled += got;
        let mut done = 0;
        while let Some(length) = text[done..filled].iter().position(|byte| *byte == b'\n') {
            let line = &text[done..done + length];
            done += length + 1;
            let Some(line) = Line::parse(line) else { continue };
            let device = match mapped.get(line.file) {
                Some(known) => *known,
                None => {
                    let device = line.device(process);
                    // A process may map any number of files under names of any length.
                    if mapped.len() >= MOST_KNOWN {
                        mapped.clear();
                    }
                    if line.file.len() <= LONGEST_KNOWN {
                        mapped.insert(line.file.to_vec(), device);
                    }
                    device
                }
            };
            if device.is_some_and(|rdev| !each(rdev, line.path)) {
                return Ok(true);
            }
        }
        text.copy_within(done..filled, 0);
        filled -= done;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_with_a_file_behind_them() {
        let line = b"00400000-00401000 rw-s 00000000 00:05 612                        /dev/nvidia0 (deleted)";
        let parsed = Line::parse(line).expect("a file");
        assert_eq!(parsed.path, b"/dev/nvidia0 (deleted)");
        assert_eq!(parsed.range_name().as_deref(), Some("400000-401000"));
        assert_eq!((parsed.dev, parsed.inode), (&b"00:05"[..], &b"612"[..]));
    }

    #[test]
    fn anonymous_memory_is_passed_over() {
        for line in [
            &b"7ffd0c2f1000-7ffd0c312000 rw-p 00000000 00:00 0                          [stack]"[..],
            b"7f1c4c000000-7f1c4c021000 rw-p 00000000 00:00 0 ",
            b"",
            b"one two",
        ] {
            assert_eq!(Line::parse(line), None);
        }
    }

    proptest! {
        #[test]
        fn no_path_is_cut(path in "/[^\n]{0,40}") {
            let line = format!("1000-2000 r--p 00000000 fe:01 17   {path}");
            prop_assert_eq!(Line::parse(line.as_bytes()).expect("a file").path, path.as_bytes());
        }
    }
}
