// SPDX-License-Identifier: MIT
//! What was found on the way to a verdict.

use step::{Reason, Verdict};

/// What speaks against a run, and what deserves attention.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    reboot: Vec<Reason>,
    refused: Vec<Reason>,
    pub(crate) warnings: Vec<Reason>,
}

impl Findings {
    /// No reload can help.
    pub(crate) fn reboot(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.reboot.push(Reason::new(what, remedy));
    }

    /// It would be unsafe, or cannot work, as things stand.
    pub(crate) fn refuse(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.refused.push(Reason::new(what, remedy));
    }

    /// It does not stop a run.
    pub(crate) fn warn(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Reason::new(what, remedy));
    }

    /// The verdict with its reasons: where only a reboot helps, nothing else counts.
    pub(crate) fn verdict(self) -> (Verdict, Vec<Reason>, Vec<Reason>) {
        let (verdict, reasons) = if !self.reboot.is_empty() {
            (Verdict::RebootRequired, self.reboot)
        } else if !self.refused.is_empty() {
            (Verdict::Refused, self.refused)
        } else {
            (Verdict::Ready, Vec::new())
        };
        (verdict, reasons, self.warnings)
    }
}
