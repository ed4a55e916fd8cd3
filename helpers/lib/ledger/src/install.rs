// SPDX-License-Identifier: MIT
//! What a run puts on disk between the unload and the load.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Another driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Install {
    /// From a slot.
    Slot {
        /// Its version.
        version: String,
    },
    /// By NVIDIA's installer, checked and with modules built for the running kernel.
    Installer {
        /// The driver's version, as the file says.
        version: String,
        /// The file that is run.
        file: PathBuf,
        /// What it is given beside what it always is.
        arguments: Vec<String>,
    },
}

impl Install {
    /// The version that comes.
    pub fn version(&self) -> &str {
        match self {
            Install::Slot { version } | Install::Installer { version, .. } => version,
        }
    }
}
