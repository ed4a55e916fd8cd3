// SPDX-License-Identifier: MIT
//! Jobs: what was queued, and how it ended.

use std::fmt;

use crate::unit::words;

/// A job in the queue of a manager.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// Its object path, which names it for ever: ids are not used twice in one life of a manager.
    pub path: String,
    /// The unit it is for.
    pub unit: String,
    /// `start`, `stop`, `restart`, …; empty where it was not asked for.
    pub kind: String,
}

words! {
    /// How a job ended.
    JobResult {
        /// It did what it was for.
        Done = "done",
        /// Another request took its place, or it was cancelled.
        Canceled = "canceled",
        /// Its own time was up.
        Timeout = "timeout",
        /// The unit failed.
        Failed = "failed",
        /// A unit that it depends on failed.
        Dependency = "dependency",
        /// The unit need not do this in its state.
        Skipped = "skipped",
        /// The unit cannot do this in its state.
        Invalid = "invalid",
        /// An `Assert…=` of the unit did not hold.
        Assert = "assert",
        /// The unit's type cannot do this.
        Unsupported = "unsupported",
        /// The unit was removed from memory.
        Collected = "collected",
        /// The unit has run and runs once only.
        Once = "once",
        /// The unit has been frozen.
        Frozen = "frozen",
        /// The unit's slice is full.
        Concurrency = "concurrency",
        /// It ended unseen: the manager was reloading or out of reach. Read the
        /// state of the unit.
        Unseen = "unseen",
    }
}

impl JobResult {
    /// Whether the unit is now as it was asked to be.
    pub fn is_success(&self) -> bool {
        matches!(self, JobResult::Done | JobResult::Skipped)
    }
}
