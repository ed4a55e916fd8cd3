// SPDX-License-Identifier: MIT
//! The Journal Export Format (systemd.io/JOURNAL_EXPORT_FORMATS): fields a line each, or with their length
//! before them, and an empty line between entries.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

/// No message of the kernel is nearly as long; what is, is read and left.
const LONGEST: u64 = 1 << 20;

/// What counts of an entry.
#[derive(Debug, Default)]
pub struct Entry {
    /// The line on which the message begins.
    pub(crate) number: usize,
    has_message: bool,
    message: Vec<u8>,
    cursor: Vec<u8>,
    is_foreign: bool,
    says_kernel: bool,
    last_is_message: bool,
    source_usec: Option<u64>,
    usec: Option<u64>,
}

impl Entry {
    /// Whether nothing speaks against its being a message of the kernel: that it came by another way, or
    /// that a program wrote it to /dev/kmsg, for which the kernel leaves facility 0 to itself.
    pub fn is_kernels(&self) -> bool {
        self.has_message && !self.is_foreign
    }

    /// Whether the entry itself says that the kernel wrote it.
    pub(crate) fn says_kernel(&self) -> bool {
        self.is_kernels() && self.says_kernel
    }

    /// Its message; not UTF-8 only in part where a process is named so.
    pub fn message(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.message)
    }

    /// Where to go on reading after it.
    pub fn cursor(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.cursor)
    }

    /// When the kernel wrote it, in microseconds of its log clock; where the entry does not say, when the
    /// journal got it.
    pub fn usec(&self) -> Option<u64> {
        self.source_usec.or(self.usec)
    }

    pub(crate) fn clear(&mut self) {
        self.message.clear();
        self.cursor.clear();
        self.has_message = false;
        self.is_foreign = false;
        self.says_kernel = false;
        self.last_is_message = false;
        self.source_usec = None;
        self.usec = None;
    }

    fn set(&mut self, number: usize, name: &[u8], value: &[u8]) {
        let into = |place: &mut Vec<u8>| {
            place.clear();
            place.extend_from_slice(value);
        };
        self.last_is_message = name == b"MESSAGE";
        match name {
            b"MESSAGE" => {
                self.number = number;
                self.has_message = true;
                into(&mut self.message);
            }
            b"__CURSOR" => into(&mut self.cursor),
            b"_TRANSPORT" => {
                self.says_kernel = true;
                self.is_foreign |= value != b"kernel";
            }
            b"SYSLOG_FACILITY" => self.is_foreign |= value != b"0",
            b"_SOURCE_MONOTONIC_TIMESTAMP" => self.source_usec = decimal(value),
            b"__MONOTONIC_TIMESTAMP" => self.usec = decimal(value),
            _ => {}
        }
    }
}

fn decimal(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Reads what `journalctl --output=export` writes, and gives `each` the entries in their order.
///
/// # Errors
/// The stream ends within a field, or cannot be read.
pub fn read_export(reader: impl BufRead, mut each: impl FnMut(&Entry)) -> io::Result<()> {
    let mut lines = Lines::new(reader);
    let mut entry = Entry::default();
    while lines.next()? {
        if !lines.field(&mut entry)? {
            each(&entry);
            entry.clear();
        }
    }
    if entry.has_message {
        each(&entry);
    }
    Ok(())
}

/// What a line of a log belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    Lines,
    Export,
    Verbose,
}

pub(crate) struct Lines<R> {
    reader: R,
    /// How many there were so far.
    pub(crate) number: usize,
    /// The last one, without its end.
    pub(crate) line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, number: 0, line: Vec::new() }
    }

    /// Reads the next line; false at the end.
    pub(crate) fn next(&mut self) -> io::Result<bool> {
        self.line.clear();
        if self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(false);
        }
        if self.line.last() != Some(&b'\n') {
            self.reader.skip_until(b'\n')?;
        }
        while matches!(self.line.last(), Some(b'\n' | b'\r')) {
            self.line.pop();
        }
        self.number += 1;
        Ok(true)
    }

    /// What begins here: an entry, and in which form.
    pub(crate) fn begins(&self) -> Within {
        if self.line.starts_with(b"__CURSOR=") || self.line.starts_with(b"__REALTIME_TIMESTAMP=") {
            return Within::Export;
        }
        // `Sun 2025-02-23 16:24:18.123456 UTC [s=…;i=…;b=…;m=…;t=…;x=…]`
        let line = String::from_utf8_lossy(&self.line);
        match line
            .split_once(" [s=")
            .is_some_and(|(_, cursor)| cursor.contains(";i=") && cursor.ends_with(']'))
        {
            true => Within::Verbose,
            false => Within::Lines,
        }
    }

    /// Takes the line as one of an entry that `journalctl -o verbose` writes; false if the entry ended
    /// with the line before.
    pub(crate) fn verbose_field(&self, entry: &mut Entry) -> bool {
        let Some(field) = self.line.strip_prefix(b"    ") else { return false };
        match field.iter().position(|byte| *byte == b'=') {
            Some(at) if field[0] != b' ' => entry.set(self.number, &field[..at], &field[at + 1..]),
            // A value of several lines is indented below its first: only a message of the kernel counts.
            _ if entry.last_is_message => {
                entry.message.push(b'\n');
                entry.message.extend_from_slice(field.trim_ascii_start());
            }
            _ => {}
        }
        true
    }

    /// Takes the line as a field of an entry; false if the entry ends here.
    pub(crate) fn field(&mut self, entry: &mut Entry) -> io::Result<bool> {
        if self.line.is_empty() {
            return Ok(false);
        }
        let number = self.number;
        if let Some(at) = self.line.iter().position(|byte| *byte == b'=') {
            entry.set(number, &self.line[..at], &self.line[at + 1..]);
            return Ok(true);
        }
        let mut length = [0; 8];
        self.reader.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        let mut value = Vec::new();
        self.reader.by_ref().take(length.min(LONGEST)).read_to_end(&mut value)?;
        let left = length.saturating_sub(LONGEST);
        io::copy(&mut self.reader.by_ref().take(left), &mut io::sink())?;
        self.reader.skip_until(b'\n')?;
        self.number += 1 + value.iter().filter(|byte| **byte == b'\n').count();
        entry.set(number, &self.line, &value);
        Ok(true)
    }
}
