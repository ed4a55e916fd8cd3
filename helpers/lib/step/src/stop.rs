// SPDX-License-Identifier: MIT
//! Ways to end that are not a failure of the program, and the exit codes for all of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Message;

/// Exit codes of the command and of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed and rolled back.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Refused; nothing was touched.
    Refused = 3,
    /// Only a reboot helps; nothing was touched.
    RebootRequired = 4,
    /// Done or rolled back, but something could not be restored.
    Degraded = 5,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why something was refused: what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What is wrong, with the thing named.
    pub what: String,
    /// What the reader can do.
    pub remedy: String,
}

impl Reason {
    /// A reason.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// A verdict that ends a step before anything is touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// It would be unsafe, or it cannot work, as things stand.
    #[error("refused, nothing was touched: {}", list(.0))]
    Refused(Vec<Reason>),
    /// No reload can help.
    #[error("no reload can help now, nothing was touched: {}", list(.0))]
    RebootRequired(Vec<Reason>),
    /// The step does not join the open run, which stays as it is.
    #[error("refused, the open run stays as it is: {}", list(.0))]
    NotInThisRun(Vec<Reason>),
}

impl Stop {
    /// Refuses to join the open run.
    pub fn not_in_this_run(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Stop::NotInThisRun(vec![Reason::new(what, remedy)])
    }

    /// The journal's id of it.
    pub(crate) fn message(&self) -> Message {
        match self {
            Stop::Refused(_) | Stop::NotInThisRun(_) => Message::RunRefused,
            Stop::RebootRequired(_) => Message::RebootRequired,
        }
    }

    /// The exit code that says so.
    pub fn exit(&self) -> Exit {
        match self {
            Stop::Refused(_) | Stop::NotInThisRun(_) => Exit::Refused,
            Stop::RebootRequired(_) => Exit::RebootRequired,
        }
    }
}

fn list(reasons: &[Reason]) -> String {
    reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join("; ")
}
