//! Where references hide that no file table shows. Looked for only when some are unexplained.
//!
//! The kernel does not tell which file is in flight in a socket, or is registered with a ring; it
//! tells that some are (`scm_fds` since Linux 5.6, `UserFiles`). So these are likely places, not
//! holders: nobody is killed for having one.

use crate::Result;
use crate::model::Place;
use crate::process::Process;
use crate::walk::{Scratch, each_entry, number, open_dir, walk};
use rustix::fs::readlinkat;
use std::path::Path;
use step::Root;

/// Modules that look up the driver's functions by name at run time: they hold a reference and
/// stand in nobody's `holders`.
const BY_NAME: [&str; 2] = ["nvidia_fs", "nvidia_peermem"];

/// The likely places, the likeliest first.
pub(crate) fn places(root: &Root, proc: &Path) -> Result<Vec<Place>> {
    let pids = crate::walk::processes(proc)?;
    let dir = open_dir(rustix::fs::CWD, proc)
        .map_err(|error| crate::Error::Read { path: proc.to_owned(), source: error.into() })?;
    let walked = walk(pids, move |scratch, pid| {
        let process = Process::open(&dir, pid).ok()?;
        let places = of_process(scratch, &process, pid);
        (!places.is_empty()).then_some(places)
    });
    let mut places: Vec<Place> = walked.found.into_iter().flatten().collect();
    places.sort_by_key(order);
    for name in BY_NAME {
        if root.path("/sys/module").join(name).exists() {
            places.push(Place::Kernel {
                what: format!("the module {name}, which takes references without being listed"),
            });
        }
    }
    Ok(places)
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

fn of_process(scratch: &mut Scratch, process: &Process, pid: i32) -> Vec<Place> {
    let mut places = Vec::new();
    let Ok(table) = open_dir(&process.dir, "fd") else { return places };
    let mut candidates = Vec::new();
    // A table cut short by the end of the process holds nothing any more.
    let _ = each_entry(&table, &mut scratch.entries, |name| {
        let kind = readlinkat(&table, name, Vec::new()).ok().and_then(|link| kind(link.to_bytes()));
        candidates.extend(number(name).zip(kind));
        true
    });
    if candidates.is_empty() {
        return places;
    }
    let Some(stat) = process.stat() else { return places };
    for (fd, kind) in candidates {
        let field = |name| process.fd_field("fd", fd, name);
        let count = |name| field(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (start_ticks, comm) = (stat.start_ticks, stat.comm.clone());
        match kind {
            Candidate::Socket => {
                let in_flight = count("scm_fds");
                if in_flight > 0 {
                    places.push(Place::Socket { pid, start_ticks, comm, fd, in_flight });
                }
            }
            Candidate::Ring => {
                let files = count("UserFiles");
                if files > 0 {
                    places.push(Place::IoUring { pid, start_ticks, comm, fd, files });
                }
            }
            Candidate::Buffer => {
                if field("exp_name").as_deref() == Some("drm") {
                    places.push(Place::DmaBuf { pid, start_ticks, comm, fd });
                }
            }
        }
    }
    places
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
    use rustix::fd::AsFd;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn descriptors_in_flight_name_their_socket() {
        let (sender, receiver) = UnixDatagram::pair().expect("a pair of sockets");
        let null = std::fs::File::open("/dev/null").expect("open");
        send_descriptor(&sender, &null);
        let me = i32::try_from(std::process::id()).expect("a pid");
        let found = places(&Root::system(), Path::new("/proc")).expect("a walk");
        let mine = found.iter().find(|place| {
            matches!(place, Place::Socket { pid, fd, .. }
                if *pid == me && *fd == receiver.as_raw_fd())
        });
        assert!(matches!(mine, Some(Place::Socket { in_flight: 1, .. })), "{mine:?}");
    }

    fn send_descriptor(socket: &UnixDatagram, file: &std::fs::File) {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let fds = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        assert!(message.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(socket, &[std::io::IoSlice::new(b"x")], &mut message, SendFlags::empty()).expect("sent");
    }

    #[test]
    fn kinds() {
        assert_eq!(kind(b"socket:[1]"), Some(Candidate::Socket));
        assert_eq!(kind(b"anon_inode:[io_uring]"), Some(Candidate::Ring));
        assert_eq!(kind(b"/dmabuf:"), Some(Candidate::Buffer));
        assert_eq!(kind(b"/tmp/socket:[1]"), None);
    }
}
