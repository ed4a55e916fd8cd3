// SPDX-License-Identifier: MIT
//! systemd's own sockets, made readable for zbus.
//!
//! What systemd sends over a private socket names `org.freedesktop.systemd1` as its sender. On a bus
//! that field is the bus daemon's to fill in and holds a unique name, so zbus refuses the message,
//! and with it the connection. A relay within the process corrects the one byte: a unique name begins
//! with a colon.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

/// The fixed part of a message.
const HEADER: usize = 16;

/// The header field that holds the sender.
const SENDER: u8 = 7;

/// No line of the handshake is longer, by the same: dbus-daemon's own limit.
const LINE: usize = 16 << 10;

/// No message is longer, by the D-Bus specification.
const LONGEST: usize = 128 << 20;

/// A connection to systemd, made one that zbus can use.
pub(crate) fn patched(systemd: UnixStream) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let (mut from, mut to) = (theirs.try_clone()?, systemd.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let _ = relay(systemd, &theirs);
        let _ = theirs.shutdown(Shutdown::Both);
    });
    Ok(ours)
}

/// Passes on what `from` says, first the lines of the handshake, then messages, until it ends.
pub(crate) fn relay(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut first = [0];
    from.read_exact(&mut first)?;
    while first != *b"l" && first != *b"B" {
        let mut line = first.to_vec();
        while line.last() != Some(&b'\n') {
            if line.len() > LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            from.read_exact(&mut first)?;
            line.extend(first);
        }
        to.write_all(&line)?;
        from.read_exact(&mut first)?;
    }
    let mut message = first.to_vec();
    loop {
        fill(&mut message, &mut from, HEADER)?;
        let length = length(&message).ok_or(io::ErrorKind::InvalidData)?;
        fill(&mut message, &mut from, length)?;
        patch(&mut message);
        to.write_all(&message)?;
        message.clear();
    }
}

/// Reads on until `message` has `length` bytes. It takes as much memory as there is said, not as is announced.
fn fill(message: &mut Vec<u8>, from: &mut impl Read, length: usize) -> io::Result<()> {
    from.take((length - message.len()) as u64).read_to_end(message)?;
    if message.len() == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn number(message: &[u8], at: usize) -> Option<usize> {
    let bytes = message.get(at..at + 4)?.try_into().ok()?;
    let number = if message[0] == b'l' { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
    usize::try_from(number).ok()
}

/// How long the message is that begins with `header`.
fn length(header: &[u8]) -> Option<usize> {
    let (body, fields) = (number(header, 4)?, number(header, 12)?);
    let length = HEADER.checked_add(fields.checked_next_multiple_of(8)?)?.checked_add(body)?;
    (length <= LONGEST).then_some(length)
}

/// Makes the sender a unique name, if the message has one that is not. What is not understood is
/// left to zbus.
fn patch(message: &mut [u8]) {
    if let Some(at) = sender(message).filter(|at| *at < message.len())
        && message[at] != b':'
        && !message[at..].starts_with(b"org.freedesktop.DBus\0")
    {
        message[at] = b':';
    }
}

/// Where the sender's name begins. A field is a code and a variant, aligned to 8 bytes; the
/// variants that are in use hold a string, a path, a signature or a number.
fn sender(message: &[u8]) -> Option<usize> {
    let end = HEADER + number(message, 12)?;
    let mut at = HEADER;
    while at < end {
        let (code, value) = (*message.get(at)?, at + 4);
        let after = match message.get(at + 1..value)? {
            [1, b's' | b'o', 0] if code == SENDER => return Some(value + 4),
            [1, b's' | b'o', 0] => value + 4 + number(message, value)? + 1,
            [1, b'g', 0] => value + 1 + usize::from(*message.get(value)?) + 1,
            [1, b'u', 0] => value + 4,
            _ => return None,
        };
        at = after.next_multiple_of(8);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::Message;

    /// A signal from `sender`, which has to be as long as zbus' unique name for it.
    fn signal(sender: &str) -> Vec<u8> {
        let valid = format!(":{}", &sender[1..]);
        let message =
            Message::signal("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "Reloading")
                .sender(valid.as_str())
                .build(&(true, "org.freedesktop.systemd1"));
        let mut bytes = message.expect("builds").data().to_vec();
        let at = super::sender(&bytes).expect("has one");
        bytes[at] = sender.as_bytes()[0];
        bytes
    }

    #[test]
    fn only_the_sender_is_patched() {
        let systemd = signal("org.freedesktop.systemd1");
        let mut patched = systemd.clone();
        patch(&mut patched);
        let changed: Vec<usize> = (0..systemd.len()).filter(|at| systemd[*at] != patched[*at]).collect();
        assert_eq!(changed, [super::sender(&systemd).expect("has one")]);
        let again = patched.clone();
        patch(&mut patched);
        assert_eq!(patched, again);
    }

    #[test]
    fn lines_and_messages_pass_in_whole() {
        let messages = [signal("org.freedesktop.systemd1"), signal(":1.2")];
        let mut said = b"OK 0123456789abcdef\r\nAGREE_UNIX_FD\r\n".to_vec();
        said.extend(messages.concat());
        let mut received = Vec::new();
        let end = relay(said.as_slice(), &mut received).expect_err("it ends");
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(received.len(), said.len());
        assert_eq!(received.iter().zip(&said).filter(|(received, said)| received != said).count(), 1);
    }

    #[test]
    fn nonsense_is_no_panic() {
        for message in [&b"l"[..], &[b'l'; 16], &[b'B'; 40], &[0; 16]] {
            let _ = super::sender(message);
            let _ = length(message);
        }
        let mut long = [0; 16];
        long[0] = b'l';
        long[7] = 0xff;
        assert_eq!(length(&long), None);
    }
}
