// SPDX-License-Identifier: MIT
//! Conversations with a limit in time and in bytes.
//!
//! Whatever is asked may never answer, or answer without end. Each function here takes a deadline, and
//! where bytes come in, the most that are read. What passes a limit is an [`std::io::Error`]:
//! `TimedOut`, or `InvalidData` for too many bytes.

#![forbid(unsafe_code)]

mod child;
#[cfg(test)]
mod fuzz;
mod lines;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, socket_with,
};

pub use child::{child, child_with_errors, end_of, run, stream};
pub use lines::{Lines, send};

/// The most that is read of one answer of an engine: as much as the kubelet reads of a runtime's.
pub const BODY: usize = 16 << 20;

/// The pause between two looks at what the kernel gives no event for.
const PAUSE: Duration = Duration::from_millis(20);

/// What is left until `deadline`; never zero, which the kernel takes for "without limit".
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left.max(Duration::from_millis(1))),
    }
}

/// Connects to the socket at `path`. A blocking `connect(2)` waits without limit where the other side's
/// queue is full.
///
/// # Errors
/// The kernel's, or `TimedOut`.
pub fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect_to(&socket, &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::AGAIN) => thread::sleep(left(deadline)?.min(PAUSE)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The uid of the process that listens, or has connected, at the other end.
///
/// # Errors
/// The kernel's.
pub fn peer(stream: &UnixStream) -> io::Result<u32> {
    Ok(socket_peercred(stream)?.uid.as_raw())
}

/// The result of `work`, which runs on a thread of its own and is left behind when the time is up.
///
/// # Errors
/// `TimedOut`, or the thread ended without a result.
pub fn call<T: Send + 'static>(
    deadline: Instant,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        // Where the caller is gone, so is the use of the result.
        let _ = sender.send(work());
    })?;
    receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
        mpsc::RecvTimeoutError::Disconnected => io::Error::other("the call ended without a result"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(100)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_full_queue_is_not_waited_for_without_limit() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("binds");
        rustix::net::listen(&listener, 0).expect("listens");
        let _first = connect(&path, late()).expect("is queued");
        let error = connect(&path, soon()).expect_err("the queue is full");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let missing = connect(&directory.path().join("none"), late()).expect_err("is not there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_call_without_end_is_left_behind() {
        assert_eq!(call(late(), || 7).expect("ends"), 7);
        let error = call(soon(), || thread::sleep(Duration::from_secs(5))).expect_err("takes too long");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
