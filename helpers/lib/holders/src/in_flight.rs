// SPDX-License-Identifier: MIT
//! Descriptors that were sent over a unix socket and not received yet: in no file table, and yet
//! open.
//!
//! The kernel tells that some are in flight in a socket, not which. A peek at the socket's queue,
//! through a duplicate of it, tells: it brings duplicates of the descriptors and takes nothing
//! from the queue. It reaches the first message that has some; that is all for most.
//!
//! Anybody may send anything to a socket of others that takes connections. What is in flight is only laid
//! at the receiver's door where the sender is the same user, by the kernel's word (SO_PEERCRED).

#![allow(unsafe_code)]

use crate::process::Stat;
use crate::text::escape;
use crate::walk::{self, stat};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::fstatfs;
use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, getsockname, recvmsg,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::fs::{self, File};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use step::Root;

/// The most descriptors in one message (`SCM_MAX_FD` of the kernel).
const MOST: usize = 253;
/// Data before the descriptors that is looked over in a stream.
const AHEAD: usize = 64 << 10;
/// `FUSE_CTL_SUPER_MAGIC` of the kernel.
const FUSE_CONTROL: i64 = 0x6573_5543;

/// A socket that was looked at.
pub(crate) struct SocketContents {
    /// The user at the other end, if that is known.
    pub(crate) sender: Option<u32>,
    /// The socket's address, escaped.
    pub(crate) address: String,
    /// What the descriptors in flight lead to; empty where that was not looked at.
    pub(crate) files: Vec<walk::Stat>,
}

/// What is known of socket `fd` of process `pid`. What is in flight in it is looked at where the user at the
/// other end is known, and is root or `others` says that what users send may be received.
///
/// # Errors
/// The process is another by now, or its descriptors may not be duplicated (CAP_SYS_PTRACE).
pub(crate) fn look(pid: i32, start_ticks: u64, fd: i32, others: bool) -> rustix::io::Result<SocketContents> {
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
    let mut seen = SocketContents { sender: peer(&socket)?, address: address(&socket), files: Vec::new() };
    if seen.sender.is_some_and(|sender| sender == 0 || others) {
        // An error is an empty queue: somebody received it.
        seen.files = peek(&socket).unwrap_or_default();
    }
    Ok(seen)
}

/// The user who connected this socket, made the pair of it, or listened for it. None where there was
/// no process: a datagram may be from any, and so may what waits at a listening socket.
fn peer(socket: &OwnedFd) -> rustix::io::Result<Option<u32>> {
    // Of a listening socket the kernel tells its own user.
    if socket_acceptconn(socket)? {
        return Ok(None);
    }
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // rustix would take the pid of a peer that there is not for one of its Pids, which are never 0.
    // SAFETY: the kernel writes at most `size` bytes to `peer`, which is as large and lives here.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    match result {
        0 => Ok((peer.uid != u32::MAX && peer.pid != 0).then_some(peer.uid)),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

fn address(socket: &OwnedFd) -> String {
    let Some(address) = getsockname(socket).ok().and_then(|any| SocketAddrUnix::try_from(any).ok()) else {
        return String::new();
    };
    match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => escape(path),
        (None, Some(name)) => format!("@{}", escape(name)),
        (None, None) => String::new(),
    }
}

/// Whether descriptors of users may be received to look at them. Who receives one has to close it, and to
/// close a file of a FUSE file system waits for the user's program that serves it, for ever if that likes.
pub(crate) fn may_receive_users(root: &Root) -> bool {
    let connections = root.path("/sys/fs/fuse/connections");
    let Ok(entries) = fs::read_dir(&connections) else {
        // Without FUSE there is no such directory.
        return !connections.exists();
    };
    if root.is_system() {
        let magic = File::open(&connections).and_then(|folder| Ok(fstatfs(folder)?.f_type));
        // Where that is not mounted, it is not known.
        if !magic.is_ok_and(|magic| magic == FUSE_CONTROL) {
            return false;
        }
    }
    // A connection belongs to the process that mounted it.
    entries.flatten().all(|entry| entry.metadata().is_ok_and(|entry| entry.uid() == 0))
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
    use rustix::fd::AsFd;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

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

    fn uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn numbers(fd: i32) -> Vec<(u32, u32)> {
        let (pid, start_ticks) = me();
        let found = look(pid, start_ticks, fd, true).expect("a look");
        assert_eq!(found.sender, Some(uid()));
        found.files.iter().map(|found| (found.rdev.major, found.rdev.minor)).collect()
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
        assert_eq!(look(pid, start_ticks, file.as_raw_fd(), true).err(), Some(Errno::NOTSOCK));
        assert_eq!(look(pid, start_ticks + 1, file.as_raw_fd(), true).err(), Some(Errno::SRCH));
    }

    #[test]
    fn what_a_user_sent_is_not_received_where_that_may_hang() {
        let (sender, receiver) = UnixStream::pair().expect("a pair of sockets");
        send(&sender, &File::open("/dev/full").expect("open"));
        let (pid, start_ticks) = me();
        let seen = look(pid, start_ticks, receiver.as_raw_fd(), false).expect("a look");
        assert_eq!(seen.files.is_empty(), uid() != 0);
    }

    #[test]
    fn addresses_and_senders() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("odd\nname");
        let (pid, start_ticks) = me();
        let look = |fd: i32| look(pid, start_ticks, fd, true).expect("a look");
        let listener = UnixListener::bind(&path).expect("binds");
        let seen = look(listener.as_raw_fd());
        assert!(seen.address.ends_with("/odd\\nname"), "{}", seen.address);
        assert_eq!(seen.sender, None, "the connection is not accepted yet");
        let client = UnixStream::connect(&path).expect("connects");
        let (accepted, _) = listener.accept().expect("accepts");
        send(&client, &File::open("/dev/full").expect("open"));
        let seen = look(accepted.as_raw_fd());
        assert_eq!((seen.sender, seen.files.len()), (Some(uid()), 1));
        // From no known process.
        let receiver = UnixDatagram::bind(directory.path().join("datagrams")).expect("binds");
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.connect(directory.path().join("datagrams")).expect("connects");
        send(&sender, &File::open("/dev/full").expect("open"));
        let seen = look(receiver.as_raw_fd());
        assert_eq!((seen.sender, seen.files.len()), (None, 0));
        let name = SocketAddr::from_abstract_name(format!("of-a-test-{pid}")).expect("a name");
        let listener = UnixListener::bind_addr(&name).expect("binds");
        assert_eq!(look(listener.as_raw_fd()).address, format!("@of-a-test-{pid}"));
    }

    #[test]
    fn where_a_user_has_mounted_fuse_nothing_of_users_is_received() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert!(may_receive_users(&root), "no FUSE");
        let connection = root.path("/sys/fs/fuse/connections/42");
        fs::create_dir_all(&connection).expect("created");
        assert_eq!(may_receive_users(&root), uid() == 0, "of the one that made this");
        if uid() == 0 {
            std::os::unix::fs::chown(&connection, Some(7), None).expect("changed");
            assert!(!may_receive_users(&root));
        }
    }
}
