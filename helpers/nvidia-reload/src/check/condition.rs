// SPDX-License-Identifier: MIT
//! What the driver needs, in one word.

use serde::Serialize;

/// What the driver needs; the worst comes last, but for what is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Nothing: what is loaded is what is on disk, and no GPU complains.
    #[serde(rename = "in-step")]
    Match,
    /// It is not known, or it is in no state that a reload or a reset is for.
    Unknown,
    /// A reload: another driver is on disk than is loaded.
    ReloadNeeded,
    /// The driver that is installed has no modules for the running kernel: no reload can help now.
    NotInstalled,
    /// Whatever helps a GPU that does not work: a reload may, a reset, a reboot.
    GpuFailed,
    /// A reset of a GPU.
    ResetNeeded,
    /// A reboot.
    RebootNeeded,
}

impl Condition {
    /// All of them.
    pub const ALL: [Condition; 7] = [
        Condition::Match,
        Condition::ReloadNeeded,
        Condition::NotInstalled,
        Condition::GpuFailed,
        Condition::ResetNeeded,
        Condition::RebootNeeded,
        Condition::Unknown,
    ];

    /// What it is called in JSON and in metrics.
    pub fn key(self) -> &'static str {
        match self {
            Condition::Match => "in-step",
            Condition::ReloadNeeded => "reload-needed",
            Condition::NotInstalled => "not-installed",
            Condition::GpuFailed => "gpu-failed",
            Condition::ResetNeeded => "reset-needed",
            Condition::RebootNeeded => "reboot-needed",
            Condition::Unknown => "unknown",
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Condition::Match => "versions match",
            Condition::ReloadNeeded => "reload needed",
            Condition::NotInstalled => "not installed for this kernel",
            Condition::GpuFailed => "GPU failed",
            Condition::ResetNeeded => "reset needed",
            Condition::RebootNeeded => "reboot needed",
            Condition::Unknown => "unknown",
        }
    }

    /// What a monitor's plugin exits with (Monitoring Plugins' guidelines): OK, WARNING, CRITICAL,
    /// UNKNOWN.
    pub fn exit(self) -> u8 {
        match self {
            Condition::Match => 0,
            Condition::ReloadNeeded => 1,
            Condition::NotInstalled
            | Condition::GpuFailed
            | Condition::ResetNeeded
            | Condition::RebootNeeded => 2,
            Condition::Unknown => 3,
        }
    }
}
