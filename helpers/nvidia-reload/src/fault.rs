// SPDX-License-Identifier: MIT
//! Why the command itself cannot do what was asked: for people, and as JSON.

use serde::Serialize;
use step::{Exit, Reason};

/// The name and version of the JSON of an error.
pub const SCHEMA: &str = "nvidia-reload.error/1";

/// Why not, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What the command exits with.
    pub exit: u8,
    /// What is wrong, with the thing named.
    pub error: String,
    /// What the reader can do; empty where there is nothing to advise.
    pub remedy: String,
    /// Why, the nearest cause first.
    pub causes: Vec<String>,
}

/// A result with a [`Fault`].
pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// An error that ends the command with `exit`.
    pub fn new(exit: Exit, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            schema: SCHEMA,
            exit: exit as u8,
            error: error.into(),
            remedy: remedy.into(),
            causes: Vec::new(),
        }
    }

    /// Nothing was touched, for this reason.
    pub fn refused(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Exit::Refused, error, remedy)
    }

    /// With the causes that `error` and its own causes tell.
    pub fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors repeat their cause in their own text.
            if !self.causes.last().is_some_and(|last| last.ends_with(&text)) {
                self.causes.push(text);
            }
            cause = error.source();
        }
        self
    }

    /// The same as a reason, for a report.
    pub fn reason(&self) -> Reason {
        Reason::new(self.error.clone(), self.remedy.clone())
    }
}

impl From<bus::Error> for Fault {
    fn from(error: bus::Error) -> Self {
        let remedy = match &error {
            bus::Error::Unreachable { .. } => {
                "is this machine run by systemd? `systemctl is-system-running` tells"
            }
            bus::Error::NoSuchUnit { .. } => "is the package nvidia-reload installed completely?",
            bus::Error::Refused { .. } => "`systemctl status nvidia-reload.target` tells more",
            _ => "`journalctl -u 'nvidia-reload-*'` tells what the run did",
        };
        let fault = Fault::new(Exit::Failed, error.to_string(), remedy);
        match std::error::Error::source(&error) {
            Some(source) => fault.because(source),
            None => fault,
        }
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        let fault = Fault::new(Exit::Failed, error.to_string(), "");
        let source: Option<&(dyn std::error::Error + 'static)> = error.chain().nth(1);
        match source {
            Some(source) => fault.because(source),
            None => fault,
        }
    }
}
