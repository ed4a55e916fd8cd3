// SPDX-License-Identifier: MIT
//! What a run was for, and what started it.

use ledger::{Event, Run, Starter, Step};
use serde::Serialize;

/// What a run was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// To load the driver that is on disk.
    Reload,
    /// To reset GPUs.
    Reset,
    /// To install a driver from NVIDIA's installer, and load it.
    Install,
    /// To put a driver on disk from its slot, and load it.
    Rollback,
    /// To keep the machine without workloads.
    Drained,
    /// To keep the machine without driver.
    Offline,
}

impl What {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            What::Reload => "reload",
            What::Reset => "reset",
            What::Install => "install",
            What::Rollback => "rollback",
            What::Drained => "drained",
            What::Offline => "offline",
        }
    }

    pub(super) fn of(run: &Run, records: &[ledger::Record]) -> Self {
        let snapshot = &run.snapshot;
        let unloads = |event: &Event| match event {
            Event::Intent { step, .. } | Event::StepDone { step, .. } => *step == Step::RmmodChain,
            _ => false,
        };
        match (&snapshot.install, snapshot.hold) {
            _ if snapshot.reset => What::Reset,
            (Some(ledger::Install::Installer { .. }), _) => What::Install,
            (Some(ledger::Install::Slot { .. }), _) => What::Rollback,
            // `start` goes on from there with a reload.
            (None, Some(true)) if run.committed => What::Reload,
            (None, Some(true)) if records.iter().any(|record| unloads(&record.event)) => What::Offline,
            (None, Some(true)) => What::Drained,
            (None, _) => What::Reload,
        }
    }
}

/// What started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StartedBy {
    /// The subcommand.
    pub command: String,
    /// The system's unit in which it ran; null in a login session.
    pub unit: Option<String>,
    /// The user who had logged in; null where no login led to it.
    pub uid: Option<u32>,
    /// The name of that user, where `/etc/passwd` has one.
    pub user: Option<String>,
}

impl StartedBy {
    pub(super) fn of(starter: &Starter, passwd: &str) -> Self {
        let user = starter.login.and_then(|uid| holders::user_name(passwd, uid));
        let (command, unit) = (starter.command.clone(), starter.unit.clone());
        Self { command, unit, uid: starter.login, user }
    }

    /// In words.
    pub fn words(&self) -> String {
        let who = match (&self.user, self.uid, &self.unit) {
            (Some(user), ..) => user.clone(),
            (None, Some(uid), _) => format!("user {uid}"),
            (None, None, Some(unit)) => unit.clone(),
            (None, None, None) => "root".to_owned(),
        };
        format!("{who} (nvidia-reload {})", self.command)
    }
}
