// SPDX-License-Identifier: MIT
//! What is done about systemd's units.

use serde::{Deserialize, Serialize};

/// What is done where logind keeps a GPU's device open for a session in which no display server uses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Logind {
    /// logind is asked to close it.
    #[default]
    Release,
    /// Its unit is restarted; what it keeps all the same it is asked to close.
    Restart,
}

/// How systemd units are stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Units {
    /// The longest time that all stops together may take, in seconds, whatever the units' own
    /// `TimeoutStopSec=` say.
    pub stop_timeout: u64,
    /// Units that are never stopped; a holder in one is a refusal. `UNIT` of the system, `USER:UNIT`
    /// of a user's manager.
    pub protect: Vec<String>,
    /// What is done where logind keeps a device.
    pub logind: Logind,
}

impl Default for Units {
    fn default() -> Self {
        Self { stop_timeout: 600, protect: Vec::new(), logind: Logind::Release }
    }
}
