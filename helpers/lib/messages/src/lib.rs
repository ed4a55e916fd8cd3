// SPDX-License-Identifier: MIT
//! The driver's kernel messages of this boot, from where no program can forge them.
//!
//! The kernel's own log (`/dev/kmsg`) is read first: it takes milliseconds and has the newest messages. It drops old
//! ones; what is older than its first record comes from the journal. In both only facility 0 counts: that is the
//! kernel's own, which no write to /dev/kmsg can have, and in the journal only what came by the kernel's transport.
//!
//! What was read, and the position in the log, is saved in `/run`, which is empty after a boot.

#![forbid(unsafe_code)]

#[cfg(test)]
mod fuzz;
mod journal;
mod kmsg;
mod memory;

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use step::Root;
use xid::{Address, Event, Message};

use kmsg::Ring;
use memory::Memory;

/// What the kernel said about NVIDIA's driver in this boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The messages that can still mean something, in their order.
    pub messages: Vec<Message>,
    /// When each GPU was reset last, on the clock of the messages.
    pub resets: BTreeMap<Address, u64>,
    /// Messages from before this time may be missing: the kernel's log forgot them, and there is no
    /// journal that has them.
    pub lost_before: Option<u64>,
    /// The time of the last record that was known before.
    saved_until: u64,
    /// The time of the kernel's last record.
    until: u64,
    cursor: Option<String>,
}

impl Log {
    /// The time from which what the kernel says is about the driver that is loaded now and was not said
    /// before the last [`Log::save`] of this boot.
    pub fn news_since(&self) -> u64 {
        let is_load = |message: &&Message| matches!(message.event, Event::DriverLoad { .. });
        let load = self.messages.iter().rev().find(is_load).map_or(0, |message| message.usec);
        load.max(self.saved_until)
    }

    /// Saves this, so that nothing of it is lost in this boot, whatever becomes of the kernel's log.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, root: &Root) -> Result<()> {
        let memory = Memory::of(step::boot_id(root)?, self.until, self.cursor.clone(), self);
        memory.save(root)
    }
}

/// Reads what there is. Changes nothing.
///
/// # Errors
/// Neither the kernel's log nor the journal can be read.
pub fn read_log(root: &Root) -> Result<Log> {
    let boot = step::boot_id(root)?;
    let memory = Memory::load(root, &boot)?;
    let ring = kmsg::read(&root.path(kmsg::DEVICE));
    assemble(memory, ring, |cursor, each| journal::read(None, &boot, cursor, each))
}

/// Notes that `gpus` were reset just now: what the kernel said about them before means nothing any more.
///
/// # Errors
/// The kernel's log cannot be read, or the file not written.
pub fn note_reset(root: &Root, gpus: &[Address]) -> Result<()> {
    let mut log = read_log(root)?;
    log.resets.extend(gpus.iter().map(|gpu| (*gpu, log.until)));
    log.save(root)
}

/// Puts together what was known, what the journal has, and what the kernel's log has.
fn assemble(
    memory: Memory,
    ring: Result<Ring>,
    journal: impl FnOnce(Option<&str>, &mut dyn FnMut(&xid::Entry)) -> Result<()>,
) -> Result<Log> {
    let mut log = Log { resets: memory.resets(), cursor: memory.cursor.clone(), ..Log::default() };
    let mut messages = memory.messages();
    log.until = memory.usec;
    log.saved_until = memory.usec;
    let (ring, problem) = match ring {
        Ok(ring) => (ring, None),
        Err(error) => (Ring::default(), Some(error)),
    };
    let gap =
        ring.first.filter(|first| first.sequence > 0 && first.usec > memory.usec).map(|first| first.usec);
    if gap.is_some() || problem.is_some() {
        let until = gap.unwrap_or(u64::MAX);
        let mut entries = 0;
        let read = journal(memory.cursor.as_deref(), &mut |entry| {
            entries += 1;
            log.cursor = Some(entry.cursor().into_owned());
            let Some(usec) = entry.usec() else { return };
            if problem.is_some() {
                log.until = log.until.max(usec);
            }
            if entry.is_kernels() && usec > memory.usec && usec < until {
                messages.extend(kmsg::message(usec, &entry.message()));
            }
        });
        match (read, problem) {
            (Ok(()), None) if entries > 0 || memory.cursor.is_some() => {}
            (Ok(()), Some(_)) if entries > 0 || memory.cursor.is_some() => {}
            // No journal, or one without the kernel's messages: the kernel's log has to do.
            (_, None) => log.lost_before = gap,
            (Ok(()), Some(problem)) => {
                return Err(problem.context("the journal has no message of the kernel in this boot"));
            }
            (Err(error), Some(problem)) => {
                return Err(anyhow!("{error:#}")).context(format!("{problem:#}"));
            }
        }
    }
    messages.extend(ring.messages.into_iter().filter(|message| message.usec > memory.usec));
    log.until = log.until.max(ring.last.unwrap_or(0));
    log.messages = messages;
    Ok(log)
}

/// Whether `event` says something about a GPU's health; the rest is left where it is.
fn counts(event: &Event) -> bool {
    event.class().is_some() || matches!(event, Event::DriverLoad { .. })
}

#[cfg(test)]
mod tests;
