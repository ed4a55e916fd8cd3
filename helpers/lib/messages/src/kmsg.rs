// SPDX-License-Identifier: MIT
//! The kernel's log as /dev/kmsg gives it (Documentation/ABI/testing/dev-kmsg).

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use xid::Message;

/// Where it is. Opening it takes CAP_SYSLOG where `kernel.dmesg_restrict` is set.
pub(crate) const DEVICE: &str = "/dev/kmsg";

/// The kernel gives no more than this for a record (CONSOLE_EXT_LOG_MAX).
const RECORD: usize = 8192;

/// What the kernel's log holds now.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// Its first record, of whatever facility.
    pub(crate) first: Option<First>,
    /// The time of its last record.
    pub(crate) last: Option<u64>,
    /// The driver's messages in it.
    pub(crate) messages: Vec<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct First {
    /// 0 while nothing was forgotten.
    pub(crate) sequence: u64,
    pub(crate) usec: u64,
}

/// Reads all that is there, without waiting for more.
///
/// # Errors
/// It cannot be opened or read.
pub(crate) fn read(path: &Path) -> Result<Ring> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    let mut ring = Ring::default();
    let mut text = Vec::new();
    let mut record = [0; RECORD];
    loop {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&record[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // EPIPE: the next record was overwritten before it was read. What is left begins later.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => text.clear(),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    // Continuation lines, with the device of a message, begin with a space.
    for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.starts_with(' ')) {
        ring.take(line);
    }
    Ok(ring)
}

impl Ring {
    /// `4,1234,5678901,-;NVRM: …`: priority and facility, number, microseconds, flags.
    fn take(&mut self, line: &str) {
        let Some((header, text)) = line.split_once(';') else { return };
        let mut fields = header.split(',').map(|field| field.parse::<u64>().ok());
        let (Some(Some(priority)), Some(Some(sequence)), Some(Some(usec))) =
            (fields.next(), fields.next(), fields.next())
        else {
            return;
        };
        self.first.get_or_insert(First { sequence, usec });
        self.last = Some(usec);
        // The three lowest bits are the level. What a program writes has a facility, 1 unless it says
        // another: only the kernel itself can use 0.
        if priority >> 3 == 0 {
            self.messages.extend(message(usec, &unescape(text)));
        }
    }
}

/// `text` as a message, if it is the driver's and says something about a GPU's health.
pub(crate) fn message(usec: u64, text: &str) -> Option<Message> {
    let event = xid::parse(text).filter(crate::counts)?;
    Some(Message { usec, text: text.to_owned(), event })
}

/// What is not printable, and the backslash, is written as `\x0a`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        match rest.get(at + 2..at + 4).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[at + 4..];
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = &rest[at + 2..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}
