// SPDX-License-Identifier: MIT
//! An act: written before it is done, and what became of it afterwards.

use anyhow::{Context, Error, Result};

use crate::object::Object;
use crate::record::Event;
use crate::step::Step;
use crate::store::Ledger;

/// An act that is written and about to be done. Where nothing more is written, it stays open, and the undo
/// looks whether it was done. What is written is an error where no run is open, or the file cannot be written.
#[derive(Debug, Clone, Copy)]
#[must_use = "the result of the act must be written to the ledger"]
pub struct Intent<'a> {
    ledger: &'a Ledger,
    id: u64,
}

/// Why an act was not done.
#[derive(Debug)]
pub enum NotDone {
    /// Nothing was changed: there is nothing to undo.
    Unchanged(Error),
    /// It may be done in part, or later: it stays open.
    Unknown(Error),
}

impl From<Error> for NotDone {
    fn from(error: Error) -> Self {
        NotDone::Unknown(error)
    }
}

impl<'a> Intent<'a> {
    pub(crate) fn new(ledger: &'a Ledger, id: u64) -> Self {
        Intent { ledger, id }
    }

    /// Its number in the ledger.
    pub fn id(self) -> u64 {
        self.id
    }

    /// Writes that it was done.
    pub fn done(self) -> Result<()> {
        self.ledger.event(Event::Done { id: self.id })
    }

    /// Writes that it did not happen.
    pub fn failed(self, reason: impl Into<String>) -> Result<()> {
        self.ledger.event(Event::Failed { id: self.id, reason: reason.into() })
    }

    /// Writes that what it took cannot be restored.
    pub fn lost(self, reason: impl Into<String>) -> Result<()> {
        self.ledger.lost(self.id, reason)
    }

    /// Leaves it open on purpose: the undo is to look.
    pub fn leave_open(self) {}
}

impl Ledger {
    /// Writes that `step` is about to act on `object`, acts, and writes what became of it.
    ///
    /// # Errors
    /// Those of [`Ledger::intent`]: nothing was done. The error of `act`. Or it was done, and the ledger does not
    /// have that.
    pub fn act<T>(&self, step: Step, object: Object, act: impl FnOnce() -> Result<T, NotDone>) -> Result<T> {
        let intent = self.intent(step, object)?;
        match act() {
            Ok(result) => intent.done().map(|()| result),
            Err(NotDone::Unchanged(error)) => {
                // What went wrong comes first, also where the ledger does not take it.
                intent.failed(format!("{error:#}")).with_context(|| format!("{error:#}"))?;
                Err(error)
            }
            Err(NotDone::Unknown(error)) => Err(error),
        }
    }
}
