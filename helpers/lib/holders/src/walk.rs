// SPDX-License-Identifier: MIT
//! Visits every process at once, and is stopped by none.
//!
//! A process that is stuck in the kernel with its memory map locked stops each reader of that map
//! or its command line. On a machine with a wedged GPU there are such processes, so the workers
//! are watched: one that makes no progress is left behind with the process it is stuck on, and
//! another takes its place.

use crate::device::Rdev;
use crate::{Error, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, StatxFlags, openat, statx};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// No process keeps a reader this long unless it is stuck in the kernel.
const STUCK: Duration = Duration::from_secs(3);
/// How often the workers are looked at, while there is work.
const LOOK: Duration = Duration::from_millis(250);
/// More threads than this only contend for the kernel's locks.
const MOST_WORKERS: usize = 8;

/// What a worker keeps from one process to the next.
pub(crate) struct Scratch {
    /// For directory entries.
    pub(crate) entries: Vec<MaybeUninit<u8>>,
    /// For reading `maps`.
    pub(crate) text: Vec<u8>,
    /// Mappings looked at before, by device, inode and path, and what they turned out to be.
    pub(crate) mapped: HashMap<Vec<u8>, Option<Rdev>>,
    /// Whether a file system without a device (by the minor of its number) is that of dma-bufs.
    pub(crate) dma_bufs: HashMap<u32, bool>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            entries: vec![MaybeUninit::uninit(); 32 << 10],
            text: vec![0; 64 << 10],
            mapped: HashMap::new(),
            dma_bufs: HashMap::new(),
        }
    }
}

/// What a walk brought home.
pub(crate) struct Walked<T> {
    /// Everything the visits returned, by no particular order.
    pub(crate) found: Vec<T>,
    /// Processes that a worker got stuck on.
    pub(crate) stuck: Vec<i32>,
}

/// Visits each of `pids`, several at once.
pub(crate) fn walk<T, F>(pids: Vec<i32>, visit: F) -> Walked<T>
where
    T: Send + 'static,
    F: Fn(&mut Scratch, i32) -> Option<T> + Send + Sync + 'static,
{
    walk_watched(pids, visit, STUCK)
}

fn walk_watched<T, F>(pids: Vec<i32>, visit: F, patience: Duration) -> Walked<T>
where
    T: Send + 'static,
    F: Fn(&mut Scratch, i32) -> Option<T> + Send + Sync + 'static,
{
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // A thread costs about as much as fifty quiet processes.
    let wanted = cores.min(MOST_WORKERS).min(1 + pids.len() / 50);
    let shared = Arc::new(Shared { pids, next: AtomicUsize::new(0), visit, found: Mutex::default() });
    let (sender, receiver) = channel();
    let mut workers: Vec<Watched> = (0..wanted).map(|number| start(number, &shared, &sender)).collect();

    let mut stuck = Vec::new();
    let mut at_work = wanted;
    while at_work > 0 {
        match receiver.recv_timeout(LOOK.min(patience)) {
            // One that was given up may still come back; its place is taken.
            Ok(number) if workers[number].given_up => {}
            Ok(_) => at_work -= 1,
            // Cannot be: `sender` lives here.
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                for number in 0..workers.len() {
                    let Some(pid) = workers[number].stuck_on(patience, &shared.pids) else {
                        continue;
                    };
                    stuck.push(pid);
                    let next = workers.len();
                    workers.push(start(next, &shared, &sender));
                }
            }
        }
    }
    Walked { found: std::mem::take(&mut *shared.found()), stuck }
}

struct Shared<T, F> {
    pids: Vec<i32>,
    next: AtomicUsize,
    visit: F,
    /// Not sent: to wake the one that waits for each of them took a tenth of a walk among holders.
    found: Mutex<Vec<T>>,
}

impl<T, F> Shared<T, F> {
    fn found(&self) -> MutexGuard<'_, Vec<T>> {
        // Nothing that holds the lock can leave half an item behind.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker as seen from outside.
struct Watched {
    /// One more than the index of the process it is at.
    at: Arc<AtomicU64>,
    last: u64,
    since: Instant,
    given_up: bool,
}

impl Watched {
    /// The process that the worker has been at for `patience`; says so once.
    fn stuck_on(&mut self, patience: Duration, pids: &[i32]) -> Option<i32> {
        let at = self.at.load(Ordering::Relaxed);
        if at != self.last {
            self.last = at;
            self.since = Instant::now();
        }
        if self.given_up || at == u64::MAX || self.since.elapsed() < patience {
            return None;
        }
        // Zero: it has not begun. It is at nothing that could hold it up, and nobody takes its place.
        let pid = pids.get(usize::try_from(at).ok()?.checked_sub(1)?).copied()?;
        self.given_up = true;
        Some(pid)
    }
}

fn start<T, F>(number: usize, shared: &Arc<Shared<T, F>>, sender: &Sender<usize>) -> Watched
where
    T: Send + 'static,
    F: Fn(&mut Scratch, i32) -> Option<T> + Send + Sync + 'static,
{
    let at = Arc::new(AtomicU64::new(0));
    let (shared, sender, mine) = (Arc::clone(shared), sender.clone(), Arc::clone(&at));
    // Not joined: a stuck one ends with the process.
    thread::spawn(move || {
        let mut scratch = Scratch::new();
        loop {
            let index = shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(pid) = shared.pids.get(index) else { break };
            mine.store(index as u64 + 1, Ordering::Relaxed);
            if let Some(item) = (shared.visit)(&mut scratch, *pid) {
                shared.found().push(item);
            }
        }
        mine.store(u64::MAX, Ordering::Relaxed);
        // Nothing listens any more when the walk is over without this worker.
        let _ = sender.send(number);
    });
    Watched { at, last: 0, since: Instant::now(), given_up: false }
}

/// Opens a directory of `/proc`, or anything else below `at`.
pub(crate) fn open_dir(at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Calls `each` with every entry's name until it returns false; dots are left out.
pub(crate) fn each_entry(
    dir: impl AsFd,
    buffer: &mut [MaybeUninit<u8>],
    mut each: impl FnMut(&CStr) -> bool,
) -> rustix::io::Result<()> {
    let mut entries = RawDir::new(dir, buffer);
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if entry.file_name().to_bytes().starts_with(b".") => {}
            Ok(entry) => {
                if !each(entry.file_name()) {
                    break;
                }
            }
            // The process went away while its table was read.
            Err(Errno::NOENT | Errno::SRCH) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A number that is a file's name: a pid, a thread, a descriptor.
pub(crate) fn number(name: &CStr) -> Option<i32> {
    std::str::from_utf8(name.to_bytes()).ok()?.parse().ok()
}

/// The processes of a `/proc`.
pub(crate) fn processes(proc: &Path) -> Result<Vec<i32>> {
    let failed = |error: Errno| Error::Read { path: proc.to_owned(), source: error.into() };
    let dir = open_dir(rustix::fs::CWD, proc).map_err(failed)?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut pids = Vec::new();
    each_entry(dir, &mut buffer, |name| {
        pids.extend(number(name));
        true
    })
    .map_err(failed)?;
    Ok(pids)
}

/// What a file is: the type bits of its mode, its device number, the number of its file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stat {
    pub(crate) file_type: u32,
    pub(crate) rdev: Rdev,
    pub(crate) dev: Rdev,
    pub(crate) ino: u64,
    pub(crate) links: u32,
}

/// Stats a file without asking its server: a file of a dead NFS server or of a hung FUSE
/// daemon answers from the cache, and its type and device number are always there.
pub(crate) fn stat(at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<Stat> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::NLINK;
    // An empty path is the file of the descriptor itself.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    let found = statx(at, path, flags, wanted)?;
    Ok(Stat {
        file_type: u32::from(found.stx_mode) & libc::S_IFMT,
        rdev: Rdev { major: found.stx_rdev_major, minor: found.stx_rdev_minor },
        dev: Rdev { major: found.stx_dev_major, minor: found.stx_dev_minor },
        ino: found.stx_ino,
        links: found.stx_nlink,
    })
}

/// Whether descriptor `fd` of a table certainly has its file open, by the mode of the link: one that can
/// be read from or written to is no O_PATH. False for those that are, and for the few that are opened
/// for ioctl alone.
pub(crate) fn is_opened(table: impl AsFd, fd: i32) -> bool {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    statx(table, fd.to_string(), flags, StatxFlags::MODE).is_ok_and(|link| link.stx_mode & 0o600 != 0)
}

impl Stat {
    pub(crate) fn is_char_device(&self) -> bool {
        self.file_type == libc::S_IFCHR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_all_once() {
        let pids: Vec<i32> = (1..=1000).collect();
        let mut walked = walk(pids.clone(), |_, pid| (pid % 2 == 0).then_some(pid));
        walked.found.sort_unstable();
        let even: Vec<i32> = pids.into_iter().filter(|pid| pid % 2 == 0).collect();
        assert_eq!(walked.found, even);
        assert!(walked.stuck.is_empty());
    }

    #[test]
    fn nobody_to_visit() {
        assert!(walk(Vec::new(), |_, pid| Some(pid)).found.is_empty());
    }

    #[test]
    fn one_that_gets_stuck_is_left_behind_and_named() {
        let (hold, wait) = channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let visit = move |_: &mut Scratch, pid| {
            if pid == 7 {
                // Until the test ends.
                let _ = wait.lock().map(|wait| wait.recv());
            }
            Some(pid)
        };
        let walked = walk_watched((1..=300).collect(), visit, Duration::from_secs(1));
        assert_eq!(walked.stuck, [7]);
        assert_eq!(walked.found.len(), 299);
        drop(hold);
    }

    #[test]
    fn one_that_has_not_begun_is_waited_for() {
        let at = Arc::new(AtomicU64::new(0));
        let mut worker = Watched { at: Arc::clone(&at), last: 0, since: Instant::now(), given_up: false };
        assert_eq!(worker.stuck_on(Duration::ZERO, &[7]), None);
        assert!(!worker.given_up, "its end counts");
        at.store(1, Ordering::Relaxed);
        assert_eq!(worker.stuck_on(Duration::ZERO, &[7]), Some(7));
        assert_eq!(worker.stuck_on(Duration::ZERO, &[7]), None, "once");
    }
}
