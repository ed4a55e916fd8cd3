// SPDX-License-Identifier: MIT
//! What verifying the driver found, as `nvidia-reload verify --json` shows it.

use serde::{Deserialize, Serialize};

use crate::Versions;

/// The name and version of the JSON that `nvidia-reload verify --json` prints.
pub const VERIFIED_SCHEMA: &str = "nvidia-reload.verify/1";

/// How one thing is; the worst comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Worth knowing; the driver works.
    Note,
    /// Not as it should be.
    Failed,
    /// Not as it should be, and only a reboot helps.
    RebootRequired,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is about: `modules`, `device nodes`, `PCI devices`, `library`, `NVML`, `GPU` with NVML's
    /// index, or `smoke test`.
    pub about: String,
    /// How it is.
    pub grade: Grade,
    /// What was seen, in words.
    pub what: String,
}

impl Check {
    /// A check.
    pub fn new(about: impl Into<String>, grade: Grade, what: impl Into<String>) -> Self {
        Self { about: about.into(), grade, what: what.into() }
    }
}

/// What verifying the driver found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// [`VERIFIED_SCHEMA`].
    pub schema: String,
    /// The worst of the checks.
    pub grade: Grade,
    /// The driver, loaded and on disk.
    pub driver: Versions,
    /// The run of this boot whose picture of the machine was compared with; null where there is none.
    pub compared_with: Option<String>,
    /// All that was looked at, in order.
    pub checks: Vec<Check>,
    /// The GPUs as NVML shows them, with what is set on them.
    pub gpus: Vec<ledger::Gpu>,
}
