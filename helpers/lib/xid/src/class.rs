// SPDX-License-Identifier: MIT
//! What a message means for a reload.

use serde::{Deserialize, Serialize};

/// The classes, the worse the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Nothing has to be done.
    Info,
    /// The program has to be started again.
    App,
    /// A reload is the cure.
    Reload,
    /// NVIDIA's support has to look at it; no software cures it, and none forbids a reload.
    Support,
    /// The GPU does not work, and nothing tells which cure it needs; a reload may be one.
    Failed,
    /// The GPU has to be reset. A reload is no cure.
    Reset,
    /// The machine has to be rebooted.
    Reboot,
}

impl Class {
    /// All of them, in their order.
    pub const ALL: [Class; 7] =
        [Class::Info, Class::App, Class::Reload, Class::Support, Class::Failed, Class::Reset, Class::Reboot];

    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Class::Info => "info",
            Class::App => "app",
            Class::Reload => "reload",
            Class::Support => "support",
            Class::Failed => "failed",
            Class::Reset => "reset",
            Class::Reboot => "reboot",
        }
    }

    /// What this tool does about it.
    pub fn what_we_do(self) -> &'static str {
        match self {
            Class::Info => "a reload goes on",
            Class::App => "a reload goes on; the program must be started again",
            Class::Reload => "a reload is the cure",
            Class::Support => "a reload goes on with a warning; it is no cure",
            Class::Failed => "a reload goes on with a warning; it may be the cure",
            Class::Reset => {
                "a reload is refused (exit 3), it would be no cure; `nvidia-reload reset` resets the GPUs"
            }
            Class::Reboot => "a reload is refused (exit 4), only a reboot helps",
        }
    }

    /// The class of that name.
    pub fn named(name: &str) -> Option<Self> {
        Class::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The class of an `NVML_GPU_RECOVERY_ACTION_*`, which Xid 154 carries and NVML's field 230 is.
    ///
    /// 0 none, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain and reset, 5 recover the IMEX domain,
    /// 6 bus reset, 7 system reboot (nvml.h). What is newer than that is taken for a reboot.
    pub fn of_recovery_action(action: u32) -> Self {
        match action {
            0 => Class::Info,
            1 | 4 | 6 => Class::Reset,
            // The processes with peer-to-peer mappings have to go, then the GPU says what is next.
            3 => Class::App,
            5 => Class::Support,
            _ => Class::Reboot,
        }
    }
}
