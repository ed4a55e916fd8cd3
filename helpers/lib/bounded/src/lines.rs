// SPDX-License-Identifier: MIT
//! Lines over a socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::left;

/// The lines that come over a socket.
#[derive(Debug)]
pub struct Lines {
    stream: UnixStream,
    read: Vec<u8>,
    longest: usize,
    most: usize,
}

impl Lines {
    /// Reads `stream`: no line longer than `longest` bytes, and not more than `most` in all.
    pub fn new(stream: UnixStream, longest: usize, most: usize) -> Self {
        Self { stream, read: Vec::new(), longest, most }
    }

    /// The next line, without its end; none where the other side has closed the socket.
    ///
    /// # Errors
    /// The kernel's, `TimedOut`, or `InvalidData` for too many bytes.
    pub fn next(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.read[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.read.drain(..=searched + at).collect();
                line.pop();
                return Ok(Some(line));
            }
            searched = self.read.len();
            if searched > self.longest {
                return Err(too_much(format!("a line of more than {} bytes", self.longest)));
            }
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            let mut chunk = [0; 16 << 10];
            let count = match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(error) if is_again(&error) => continue,
                Err(error) => return Err(error),
            };
            self.most =
                self.most.checked_sub(count).ok_or_else(|| too_much("too many bytes in all".into()))?;
            self.read.extend_from_slice(&chunk[..count]);
        }
    }
}

fn too_much(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The kernel's word for the end of a socket's own time, which is looked at by the caller's clock.
fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Writes all of `bytes`.
///
/// # Errors
/// The kernel's, or `TimedOut`: the other side does not read.
pub fn send(mut stream: &UnixStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_again(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn lines_come_one_by_one() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        send(&theirs, b"one\n\nthree\nfou", late()).expect("writes");
        let mut lines = Lines::new(ours, 8, 100);
        for expected in [&b"one"[..], b"", b"three"] {
            assert_eq!(lines.next(late()).expect("reads").expect("comes"), expected);
        }
        assert_eq!(lines.next(soon()).expect_err("is no whole line").kind(), io::ErrorKind::TimedOut);
        drop(theirs);
        assert_eq!(lines.next(late()).expect("reads"), None);
    }

    #[test]
    fn neither_a_line_nor_the_whole_is_without_limit() {
        for (longest, most) in [(100, usize::MAX), (1 << 20, 1000)] {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            std::thread::spawn(move || {
                let endless = [b'x'; 4096];
                while (&theirs).write_all(&endless).is_ok() {}
            });
            let error = Lines::new(ours, longest, most).next(late()).expect_err("is too much");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_waited_for_without_limit() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let error = send(&ours, &vec![0; 8 << 20], soon()).expect_err("it is not read");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
