//! Descriptors that were sent over a unix socket and not received yet: in no file table, and yet
//! open.
//!
//! The kernel tells that some are in flight in a socket, not which. A peek at the socket's queue,
//! through a duplicate of it, tells: it brings duplicates of the descriptors and takes nothing
//! from the queue. It reaches the first message that has some; that is all for most.

use crate::process::Stat;
use crate::walk::{self, stat};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;

/// The most descriptors in one message (`SCM_MAX_FD` of the kernel).
const MOST: usize = 253;
/// Data before the descriptors that is looked over in a stream.
const AHEAD: usize = 64 << 10;

/// What the descriptors in flight in socket `fd` of process `pid` lead to.
///
/// # Errors
/// The process is another by now, or its descriptors may not be duplicated (CAP_SYS_PTRACE).
pub(crate) fn look(pid: i32, start_ticks: u64, fd: i32) -> rustix::io::Result<Vec<walk::Stat>> {
    let process = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    // In this order: what the pidfd stands for cannot change any more.
    let now = std::fs::read(format!("/proc/{pid}/stat")).ok().and_then(|text| Stat::parse(&text));
    if now.is_none_or(|now| now.start_ticks != start_ticks) {
        return Err(Errno::SRCH);
    }
    let socket = pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?;
    if stat(&socket, c"")?.file_type != libc::S_IFSOCK {
        return Err(Errno::NOTSOCK);
    }
    peek(&socket)
}

fn peek(socket: &OwnedFd) -> rustix::io::Result<Vec<walk::Stat>> {
    let mut data = vec![0; AHEAD];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    recvmsg(socket, &mut [IoSliceMut::new(&mut data)], &mut control, flags)?;
    let mut found = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            // Each is closed as soon as it was looked at.
            found.extend(descriptors.filter_map(|descriptor| stat(&descriptor, c"").ok()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::{AsFd, AsRawFd};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::fs::File;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn send(socket: impl AsFd, file: &File) {
        let fds = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        assert!(message.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(socket, &[std::io::IoSlice::new(b"x")], &mut message, SendFlags::empty()).expect("sent");
    }

    fn me() -> (i32, u64) {
        let text = std::fs::read("/proc/self/stat").expect("readable");
        (i32::try_from(std::process::id()).expect("a pid"), Stat::parse(&text).expect("read").start_ticks)
    }

    fn numbers(fd: i32) -> Vec<(u32, u32)> {
        let (pid, start_ticks) = me();
        let found = look(pid, start_ticks, fd).expect("a look");
        found.iter().map(|found| (found.rdev.major, found.rdev.minor)).collect()
    }

    #[test]
    fn what_is_in_flight_is_seen_and_stays() {
        let (sender, receiver) = UnixDatagram::pair().expect("a pair of sockets");
        send(&sender, &File::open("/dev/full").expect("open"));
        for _ in 0..2 {
            assert_eq!(numbers(receiver.as_raw_fd()), [(1, 7)]);
        }
    }

    #[test]
    fn data_before_it_in_a_stream_does_not_hide_it() {
        let (sender, receiver) = UnixStream::pair().expect("a pair of sockets");
        std::io::Write::write_all(&mut &sender, b"first").expect("written");
        send(&sender, &File::open("/dev/full").expect("open"));
        assert_eq!(numbers(receiver.as_raw_fd()), [(1, 7)]);
    }

    #[test]
    fn another_process_or_no_socket_is_an_error() {
        let (pid, start_ticks) = me();
        let file = File::open("/dev/null").expect("open");
        assert_eq!(look(pid, start_ticks, file.as_raw_fd()).err(), Some(Errno::NOTSOCK));
        assert_eq!(look(pid, start_ticks + 1, file.as_raw_fd()).err(), Some(Errno::SRCH));
    }
}
