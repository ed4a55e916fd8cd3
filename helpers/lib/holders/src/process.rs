// SPDX-License-Identifier: MIT
//! What `/proc` tells about one process, read through its own directory: once that is open, it
//! answers for that process or not at all, however often the kernel hands out the pid again.

use crate::text::escape;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::{Errno, read};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Ticks a second in everything `/proc` tells of times: USER_HZ, 100 on every machine that has an
/// NVIDIA driver.
const TICKS_PER_SECOND: u64 = 100;
/// A command line is cut after so many bytes and arguments, so that no process makes its reader large.
const LONGEST_COMMAND: usize = 1 << 10;
const MOST_ARGUMENTS: usize = 64;

/// The parts of `/proc/PID/stat` that are of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The short name, escaped.
    pub comm: String,
    /// The state's letter.
    pub state: char,
    /// The parent.
    pub ppid: i32,
    /// `PF_…` of the kernel's `sched.h`.
    pub flags: u32,
    /// Start of the process in ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat`. The name in it is whatever the process likes, brackets and
    /// newlines too, so the last bracket counts.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let comm = text.get(open + 1..close)?;
        let rest = std::str::from_utf8(&text[close + 1..]).ok()?;
        // proc(5) counts from 1 and the state is field 3.
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let ppid = fields.next()?.parse().ok()?;
        let flags = fields.nth(9 - 5)?.parse().ok()?;
        let start_ticks = fields.nth(22 - 10)?.parse().ok()?;
        Some(Self { comm: escape(comm), state, ppid, flags, start_ticks })
    }

    /// Whether it is a thread of the kernel, which has no files and cannot be killed.
    pub fn is_kernel_thread(&self) -> bool {
        const PF_KTHREAD: u32 = 0x0020_0000;
        self.flags & PF_KTHREAD != 0
    }
}

/// A process by its directory in `/proc`.
pub(crate) struct Process {
    pub(crate) dir: OwnedFd,
}

impl Process {
    pub(crate) fn open(proc: impl AsFd, pid: i32) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { dir: openat(proc, pid.to_string(), flags, Mode::empty())? })
    }

    pub(crate) fn stat(&self) -> Option<Stat> {
        Stat::parse(&self.read("stat", 4096).ok()?)
    }

    /// The first `most` bytes of one of its files.
    pub(crate) fn read(&self, name: &str, most: usize) -> rustix::io::Result<Vec<u8>> {
        let file = openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        while bytes.len() < most {
            match read(&file, &mut part) {
                Ok(0) => break,
                Ok(got) => bytes.extend_from_slice(&part[..got]),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(most);
        Ok(bytes)
    }

    /// The user whose process it is.
    pub(crate) fn uid(&self) -> Option<u32> {
        user(&self.read("status", 8192).ok()?)
    }

    /// The file that it runs.
    pub(crate) fn executable(&self) -> Option<PathBuf> {
        let target = readlinkat(&self.dir, "exe", Vec::new()).ok()?;
        Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    /// The command line, escaped.
    pub(crate) fn command(&self) -> Vec<String> {
        arguments(&self.read("cmdline", LONGEST_COMMAND).unwrap_or_default())
    }

    /// One field of a descriptor's `fdinfo`, such as `scm_fds`.
    pub(crate) fn fd_field(&self, table: &str, fd: i32, field: &str) -> Option<String> {
        field_of(&self.read(&format!("{table}info/{fd}"), 64 << 10).ok()?, field)
    }
}

/// The user in `/proc/PID/status`: the effective one, or the real one where that is not root. Who starts
/// a set-uid program gives it its name and its descriptors, and does not become root by that.
pub(crate) fn user(status: &[u8]) -> Option<u32> {
    let ids = field_of(status, "Uid")?;
    let mut ids = ids.split_ascii_whitespace().map(str::parse);
    let (real, effective) = (ids.next()?.ok()?, ids.next()?.ok()?);
    Some(if effective == 0 { real } else { effective })
}

/// Whether root started what `/proc/PID/status` is of, whatever its user is at this moment: the real user of a set-uid
/// program is the one who started it.
pub(crate) fn is_started_by_root(status: &[u8]) -> bool {
    field_of(status, "Uid").is_some_and(|ids| ids.split_ascii_whitespace().next() == Some("0"))
}

/// The value in the line `FIELD: VALUE`.
pub(crate) fn field_of(text: &[u8], field: &str) -> Option<String> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let value = line.strip_prefix(field)?.strip_prefix(':')?;
        Some(value.trim().to_owned())
    })
}

/// The arguments of `/proc/PID/cmdline`, escaped. A process may have written anything there.
pub(crate) fn arguments(bytes: &[u8]) -> Vec<String> {
    let cut = bytes.len() == LONGEST_COMMAND;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let mut all = bytes.split(|byte| *byte == 0);
    let mut arguments: Vec<String> = all.by_ref().take(MOST_ARGUMENTS).map(escape).collect();
    if cut || all.next().is_some() {
        arguments.push("…".to_owned());
    }
    arguments
}

/// Seconds from 1970 to the boot, from `/proc/stat`.
pub(crate) fn boot_time(stat: &[u8]) -> Option<u64> {
    stat.split(|byte| *byte == b'\n')
        .find_map(|line| std::str::from_utf8(line.strip_prefix(b"btime ")?).ok()?.trim().parse().ok())
}

/// Seconds from 1970 to `ticks` after the boot.
pub(crate) fn since_1970(boot: u64, ticks: u64) -> u64 {
    boot.saturating_add(ticks / TICKS_PER_SECOND)
}

/// The name of a user in `/etc/passwd`.
pub fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| escape(name.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "4242 (odd) name\n) D 17 4242 4242 0 -1 4194560 5 0 0 0 1 2 0 0 20 0 3 0 \
        987654 1000 20 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n";

    #[test]
    fn stat_with_an_odd_name() {
        let stat = Stat::parse(STAT.as_bytes()).expect("readable");
        assert_eq!(stat.comm, "odd) name\\n");
        assert_eq!((stat.state, stat.ppid, stat.start_ticks), ('D', 17, 987_654));
        assert!(!stat.is_kernel_thread());
    }

    #[test]
    fn a_thread_of_the_kernel() {
        let text = STAT.replace("4194560", "2129984");
        assert!(Stat::parse(text.as_bytes()).expect("readable").is_kernel_thread());
    }

    #[test]
    fn our_own_stat_is_read() {
        let text = std::fs::read("/proc/self/stat").expect("readable");
        let stat = Stat::parse(&text).expect("understood");
        assert_eq!(u32::try_from(stat.ppid), Ok(std::os::unix::process::parent_id()));
        assert!(stat.start_ticks > 0);
    }

    #[test]
    fn command_lines() {
        assert_eq!(arguments(b"a\0b c\0\0"), ["a", "b c", ""]);
        assert_eq!(arguments(b"set by the process"), ["set by the process"]);
        assert_eq!(arguments(b"\xff\n\0"), ["\\xff\\n"]);
        assert!(arguments(b"").is_empty());
        let long = arguments(&[b'x'; LONGEST_COMMAND]);
        assert_eq!((long[0].len(), long[1].as_str()), (LONGEST_COMMAND, "…"));
        let many = arguments(&b"x\0".repeat(MOST_ARGUMENTS + 1));
        assert_eq!((many.len(), many[MOST_ARGUMENTS].as_str()), (MOST_ARGUMENTS + 1, "…"));
        assert_eq!(arguments(&b"x\0".repeat(MOST_ARGUMENTS)).len(), MOST_ARGUMENTS);
    }

    #[test]
    fn users_and_times() {
        assert_eq!(user(b"Name:\tx\nUid:\t1\t2\t3\t4\n"), Some(2));
        assert_eq!(user(b"Uid:\t0\t7\t0\t7\n"), Some(7), "a daemon that became another");
        assert_eq!(user(b"Uid:\t7\t0\t0\t0\n"), Some(7), "a set-uid program");
        assert_eq!(user(b"Uid:\t0\t0\t0\t0\n"), Some(0));
        assert_eq!(user_name("root:x:0:0::/:\nada:x:7:7::/:\n", 7).as_deref(), Some("ada"));
        assert_eq!(user_name("broken\n", 7), None);
        assert_eq!(boot_time(b"cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000));
        assert_eq!(since_1970(1_700_000_000, 250), 1_700_000_002);
        assert_eq!(field_of(b"pos:\t0\nscm_fds: 3\n", "scm_fds").as_deref(), Some("3"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Stat::parse(&bytes);
            user(&bytes);
            arguments(&bytes);
            boot_time(&bytes);
            field_of(&bytes, "x");
        }

        #[test]
        fn any_name_is_understood(name in "[^\0]{0,15}") {
            let text = format!("1 ({name}) S 1 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 55 0 0\n");
            prop_assert_eq!(Stat::parse(text.as_bytes()).expect("readable").start_ticks, 55);
        }
    }
}
