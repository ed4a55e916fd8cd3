// SPDX-License-Identifier: MIT
//! Which services have to run once the driver works.

use serde::{Deserialize, Serialize};

/// Services that have to run once the driver works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Services {
    /// Units of the system that are started after a reload, beside NVIDIA's own, where they failed and an
    /// active unit wants them.
    pub restart: Vec<String>,
}
