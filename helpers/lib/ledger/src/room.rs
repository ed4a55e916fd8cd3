// SPDX-License-Identifier: MIT
//! Room on the disk for a run: reserved while there is some, and used by lines that have a bound.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::object::Object;
use crate::record::Event;

/// For lines that must not fail, whatever else fills the disk: those that say what was done and restored, and
/// how the run ended.
pub(crate) const RESERVE: u64 = 256 << 10;

/// The same for each act that was announced.
const RESERVE_ACT: u64 = 1 << 10;

/// The longest text of others in a line, in bytes: what an engine answered, a command line.
const TEXT: usize = 4096;
const COMMAND: usize = 512;

/// Sets blocks aside for `length` bytes from `from` on and for what `acts` acts lead to, without making the file
/// longer. Where a file system cannot, a run has to do with what there is.
pub(crate) fn reserve(file: &File, from: u64, length: usize, acts: usize) -> io::Result<()> {
    let room = length as u64 + RESERVE + RESERVE_ACT * acts as u64;
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, room) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Cuts what others make as long as they like.
pub(crate) fn bound(event: &mut Event) {
    match event {
        Event::Intent { object: Object::Process(process), .. } => cut(&mut process.command, COMMAND),
        Event::Failed { reason, .. }
        | Event::Lost { reason, .. }
        | Event::UndoFailed { reason, .. }
        | Event::StepFailed { reason, .. } => cut(reason, TEXT),
        _ => {}
    }
}

/// Cuts a text to `bytes`, and shows that it was.
fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
}
