// SPDX-License-Identifier: MIT
//! Where references hide that no file table shows. Inventory for only when some are unexplained.
//!
//! What a user sent to himself can be looked at, so a process that has the socket is a holder as any other. What
//! somebody else sent, what is registered with an io_uring, or behind a buffer that does not tell its
//! driver, is not or cannot: those are likely places, and no process is killed for having one.

use crate::device::Rdev;
use crate::model::Place;
use crate::process::Process;
use crate::walk::{Scratch, each_entry, number, open_dir, walk};
use crate::{Result, in_flight};
use rustix::fs::readlinkat;
use std::collections::BTreeMap;
use std::path::Path;
use step::{BY_NAME, Root};

/// More places than this are counted and not named.
const MOST_PLACES: usize = 32;

/// What was found where no table shows it.
#[derive(Default)]
pub(crate) struct Hidden {
    /// Likely places, the likeliest first.
    pub(crate) places: Vec<Place>,
    /// Places that are not among these.
    more: usize,
    /// What users sent to themselves and is in flight in sockets.
    pub(crate) in_flight: Vec<InFlight>,
    /// Sockets in which devices are in flight that another user sent than has the socket.
    pub(crate) of_others: Vec<(Place, BTreeMap<Rdev, u32>)>,
}

impl Hidden {
    fn add(&mut self, place: Place) {
        // Of one process as many: a user can have any number.
        match self.places.len() < MOST_PLACES {
            true => self.places.push(place),
            false => self.more += 1,
        }
    }
}

/// Files in flight to one process, in one or more of its sockets.
pub(crate) struct InFlight {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    /// The first of the sockets.
    pub(crate) fd: i32,
    /// The numbers of the devices among them, and how often each is.
    pub(crate) devices: BTreeMap<Rdev, u32>,
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
    let others = in_flight::may_receive_users(root);
    let walked = walk(pids, move |scratch, pid| {
        let process = Process::open(&dir, pid).ok()?;
        let hidden = of_process(scratch, &process, pid, live, others);
        (!hidden.places.is_empty() || !hidden.in_flight.is_empty()).then_some(hidden)
    });
    let mut hidden = Hidden::default();
    for of_process in walked.found {
        hidden.places.extend(of_process.places);
        hidden.more += of_process.more;
        hidden.in_flight.extend(of_process.in_flight);
        hidden.of_others.extend(of_process.of_others);
    }
    hidden.places.sort_by_key(order);
    hidden.more += hidden.places.len().saturating_sub(MOST_PLACES);
    hidden.places.truncate(MOST_PLACES);
    if hidden.more > 0 {
        hidden
            .places
            .push(Place::Kernel { what: format!("{} more sockets, rings and buffers", hidden.more) });
    }
    let modules = root.path("/sys/module");
    for (name, taken) in BY_NAME {
        if modules.join(name).exists() && !modules.join("nvidia/holders").join(name).exists() {
            let what = format!("the module {name}, if it takes more than {taken} references by name");
            hidden.places.push(Place::Kernel { what });
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

fn of_process(scratch: &mut Scratch, process: &Process, pid: i32, live: bool, others: bool) -> Hidden {
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
    let (Some(stat), uid) = (process.stat(), process.uid()) else { return hidden };
    let mut devices: BTreeMap<Rdev, u32> = BTreeMap::new();
    let mut first = None;
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
                let looked = if live { in_flight::look(pid, start_ticks, fd, others).ok() } else { None };
                let (sender, address, seen) = looked.map_or((None, String::new(), Vec::new()), |seen| {
                    (seen.sender, seen.address, seen.files)
                });
                let mut among: BTreeMap<Rdev, u32> = BTreeMap::new();
                for found in seen.iter().filter(|found| found.is_char_device()) {
                    *among.entry(found.rdev).or_default() += 1;
                }
                let own = sender.is_some() && sender == uid;
                // Messages behind the first, and sockets not accepted yet, keep their secret. What another
                // user sent is not laid at the receiver's door.
                let in_flight = if own { in_flight.saturating_sub(seen.len() as u64) } else { in_flight };
                if own && !among.is_empty() {
                    first.get_or_insert(fd);
                    for (rdev, count) in &among {
                        *devices.entry(*rdev).or_default() += count;
                    }
                }
                if in_flight > 0 {
                    let place = Place::Socket { pid, start_ticks, comm, fd, in_flight, uid, sender, address };
                    if !own && !among.is_empty() && hidden.of_others.len() < MOST_PLACES {
                        hidden.of_others.push((place.clone(), among));
                    }
                    hidden.add(place);
                }
            }
            Candidate::Ring => {
                let files = count("UserFiles");
                if files > 0 {
                    hidden.add(Place::IoUring { pid, start_ticks, comm, fd, files });
                }
            }
            Candidate::Buffer => {
                if field("exp_name").as_deref() == Some("drm") {
                    hidden.add(Place::DmaBuf { pid, start_ticks, comm, fd });
                }
            }
        }
    }
    if let Some(fd) = first {
        hidden.in_flight.push(InFlight { pid, start_ticks: stat.start_ticks, fd, devices });
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
/// files without a path, and no process is judged by it.
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
