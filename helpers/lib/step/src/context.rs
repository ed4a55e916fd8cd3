// SPDX-License-Identifier: MIT
//! What a step works with.

use std::time::Duration;

use anyhow::Result;
use ledger::{Ledger, Step};
use sd_notify::NotifyState;

use crate::journal::{Priority, log, log_event};
use crate::{Config, Message, Root, Stop, text};

/// What a step works with.
pub struct Context {
    /// Which step this is.
    pub step: Step,
    /// Where the file system starts.
    pub root: Root,
    /// The ledger of this machine.
    pub ledger: Ledger,
}

impl Context {
    /// The configuration. An undo does not ask for it: what it needs is in the ledger, and a
    /// configuration broken in the middle of a run must not keep anything from coming back.
    ///
    /// # Errors
    /// The file and key that cannot be used: a refusal.
    pub fn config(&self) -> Result<Config> {
        Config::load(&self.root).map_err(|error| {
            Stop::Refused(vec![crate::Reason::new(
                format!("the configuration cannot be used: {error:#}"),
                "fix that and try again",
            )])
            .into()
        })
    }

    /// Writes to the journal what happens. Not as [`Priority::Info`]: the units leave that out (LogLevelMax=), and with
    /// it what systemd says when it stops the units of a good run, which reads like a rollback.
    pub fn info(&self, message: impl AsRef<str>) {
        log(self.step, Priority::Notice, message.as_ref(), &[]);
    }

    /// Writes to the journal what matters, with the id by which `journalctl -x` explains it.
    pub fn event(&self, event: Message, message: impl AsRef<str>, fields: &[(&str, &str)]) {
        log_event(self.step, event, message.as_ref(), fields);
    }

    /// Writes to the journal what deserves attention.
    pub fn warn(&self, message: impl AsRef<str>) {
        log(self.step, Priority::Warning, message.as_ref(), &[]);
    }

    /// Shows `status` as the unit's status line, which `systemctl status` and the command's live
    /// view read. Only for the eyes: without a manager to tell, nothing is lost.
    pub fn status(&self, status: impl AsRef<str>) {
        show_status(status.as_ref());
    }

    /// Asks systemd for `time` from now on, beyond the unit's own timeout. The units of steps whose processes
    /// may be stuck in the kernel have a short one: systemd waits that long for those, and their undo asks for
    /// what it needs.
    pub fn needs(&self, time: Duration) {
        let usec = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let _ = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(usec)]);
    }
}

/// Shows `status` as the unit's status line, see [`Context::status`].
pub fn show_status(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(&text::status(status))]);
}
