// SPDX-License-Identifier: MIT
//! The commands that have a plan.

use serde::Serialize;

use crate::target::Target;

/// What a plan is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `reload`
    Reload,
    /// `reset`
    Reset,
    /// `stop`
    Stop,
    /// `stop --offline`
    StopOffline,
    /// `start`
    Start,
    /// `rollback`
    Rollback,
    /// `recover`
    Recover,
    /// `install`
    Install,
}

impl Kind {
    /// The target that is reached.
    pub fn target(self) -> Target {
        match self {
            Kind::Reload | Kind::Rollback | Kind::Install | Kind::Start | Kind::Recover => Target::Reload,
            Kind::Reset => Target::Reset,
            Kind::Stop => Target::Drained,
            Kind::StopOffline => Target::Offline,
        }
    }

    /// Whether what is stopped stays so until `start`.
    pub fn holds(self) -> bool {
        matches!(self, Kind::Stop | Kind::StopOffline)
    }

    /// Whether it restores what an earlier command stopped.
    pub fn restores(self) -> bool {
        matches!(self, Kind::Start | Kind::Recover)
    }
}
