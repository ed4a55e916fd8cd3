//! Where references hide that no file table shows. Looked for only when some are unexplained.
//!
//! What is in flight in a socket can be looked at, so whoever has the socket is a holder as any
//! other. What is registered with an io_uring, or behind a buffer that does not tell its driver,
//! cannot: those are likely places, and nobody is killed for having one.

use crate::model::{Place, Rdev};
use crate::process::Process;
use crate::walk::{Scratch, each_entry, number, open_dir, walk};
use crate::{Result, in_flight};
use rustix::fs::readlinkat;
use std::path::Path;
use step::Root;

/// Modules that look up the driver's functions by name at run time: they hold a reference and
/// stand in nobody's `holders`.
const BY_NAME: [&str; 2] = ["nvidia_fs", "nvidia_peermem"];

/// What was found where no table shows it.
#[derive(Default)]
pub(crate) struct Hidden {
    /// Likely places, the likeliest first.
    pub(crate) places: Vec<Place>,
    /// What is in flight in sockets.
    pub(crate) in_flight: Vec<InFlight>,
}

/// Files in flight to one process in one socket.
pub(crate) struct InFlight {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) fd: i32,
    /// The numbers of the devices among them.
    pub(crate) devices: Vec<Rdev>,
}

/// Looks into all sockets and rings. `live` tells that pids are those of this machine.
pub(crate) fn look(root: &Root, proc: &Path, live: bool) -> Result<Hidden> {
    let mut pids = crate::walk::processes(proc)?;
    // While one thread looks into somebody's socket it is in this process' table, too, where another thread
    // would find it. No device is ever sent to this process.
    if live {
        pids.retain(|pid| !i32::try_from(std::process::id()).is_ok_and(|own| own == *pid));
    }
    let dir = open_dir(rustix::fs::CWD, proc)
        .map_err(|error| crate::Error::Read { path: proc.to_owned(), source: error.into() })?;
    let walked = walk(pids, move |scratch, pid| {
        let process = Process::open(&dir, pid).ok()?;
        let hidden = of_process(scratch, &process, pid, live);
        (!hidden.places.is_empty() || !hidden.in_flight.is_empty()).then_some(hidden)
    });
    let mut hidden = Hidden::default();
    for of_process in walked.found {
        hidden.places.extend(of_process.places);
        hidden.in_flight.extend(of_process.in_flight);
    }
    hidden.places.sort_by_key(order);
    for name in BY_NAME {
        if root.path("/sys/module").join(name).exists() {
            hidden.places.push(Place::Kernel {
                what: format!("the module {name}, which takes references without being listed"),
            });
        }
    }
    Ok(hidden)
}

/// Sockets say for sure that something is in flight in them, so they come first.
fn order(place: &Place) -> (u8, i32, i32) {
    match place {
        Place::Socket { pid, fd, .. } => (0, *pid, *fd),
        Place::IoUring { pid, fd, .. } => (1, *pid, *fd),
        Place::DmaBuf { pid, fd, .. } => (2, *pid, *fd),
        Place::Kernel { .. } => (3, 0, 0),
    }
}

fn of_process(scratch: &mut Scratch, process: &Process, pid: i32, live: bool) -> Hidden {
    let mut hidden = Hidden::default();
    let Ok(table) = open_dir(&process.dir, "fd") else { return hidden };
    let mut candidates = Vec::new();
    // A table cut short by the end of the process holds nothing any more.
    let _ = each_entry(&table, &mut scratch.entries, |name| {
        let kind = readlinkat(&table, name, Vec::new()).ok().and_then(|link| kind(link.to_bytes()));
        candidates.extend(number(name).zip(kind));
        true
    });
    if candidates.is_empty() {
        return hidden;
    }
    let Some(stat) = process.stat() else { return hidden };
    for (fd, kind) in candidates {
        let field = |name| process.fd_field("fd", fd, name);
        let count = |name| field(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (start_ticks, comm) = (stat.start_ticks, stat.comm.clone());
        match kind {
            Candidate::Socket => {
                let in_flight = count("scm_fds");
                if in_flight == 0 {
                    continue;
                }
                let seen = if live { in_flight::look(pid, start_ticks, fd) } else { Ok(Vec::new()) };
                let seen = seen.unwrap_or_default();
                // Messages behind the first, and sockets not accepted yet, keep their secret.
                let in_flight = in_flight.saturating_sub(seen.len() as u64);
                if in_flight > 0 {
                    hidden.places.push(Place::Socket { pid, start_ticks, comm, fd, in_flight });
                }
                let devices: Vec<Rdev> =
                    seen.iter().filter(|found| found.is_char_device()).map(|found| found.rdev).collect();
                if !devices.is_empty() {
                    hidden.in_flight.push(InFlight { pid, start_ticks, fd, devices });
                }
            }
            Candidate::Ring => {
                let files = count("UserFiles");
                if files > 0 {
                    hidden.places.push(Place::IoUring { pid, start_ticks, comm, fd, files });
                }
            }
            Candidate::Buffer => {
                if field("exp_name").as_deref() == Some("drm") {
                    hidden.places.push(Place::DmaBuf { pid, start_ticks, comm, fd });
                }
            }
        }
    }
    hidden
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Socket,
    Ring,
    Buffer,
}

/// What the link of a descriptor may hide. Here the text decides: it is made by the kernel for
/// files without a path, and nobody is judged by it.
fn kind(link: &[u8]) -> Option<Candidate> {
    if link.starts_with(b"socket:[") {
        Some(Candidate::Socket)
    } else if link == b"anon_inode:[io_uring]" {
        Some(Candidate::Ring)
    } else if link.starts_with(b"/dmabuf:") {
        Some(Candidate::Buffer)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn an_empty_socket_is_no_place() {
        let (_sender, receiver) = UnixDatagram::pair().expect("a pair of sockets");
        let me = i32::try_from(std::process::id()).expect("a pid");
        let found = look(&Root::system(), Path::new("/proc"), true).expect("a walk");
        assert!(!found.places.iter().any(|place| {
            matches!(place, Place::Socket { pid, fd, .. } if *pid == me && *fd == receiver.as_raw_fd())
        }));
    }

    #[test]
    fn kinds() {
        assert_eq!(kind(b"socket:[1]"), Some(Candidate::Socket));
        assert_eq!(kind(b"anon_inode:[io_uring]"), Some(Candidate::Ring));
        assert_eq!(kind(b"/dmabuf:"), Some(Candidate::Buffer));
        assert_eq!(kind(b"/tmp/socket:[1]"), None);
    }
}
