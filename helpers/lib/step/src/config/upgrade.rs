// SPDX-License-Identifier: MIT
//! What an upgrade of the driver's packages leads to, now and at the next boot.

use serde::{Deserialize, Serialize};

/// When a package's upgrade of the driver is followed by a reload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// As soon as nothing but restartable services has a GPU.
    #[default]
    WhenIdle,
    /// As soon as the package manager is through.
    Now,
    /// When a person says so.
    Ask,
    /// Nothing is asked for.
    Never,
}

/// Whether the loaded driver's libraries are found while the reload waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Heal {
    /// When a person says so.
    #[default]
    Ask,
    /// As soon as a reload has to wait.
    Always,
    /// Not at all.
    Never,
}

/// What an upgrade of the driver's packages leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Upgrade {
    /// When the reload comes.
    pub policy: Policy,
    /// How long a request waits for its moment, in seconds; 0 for as long as it takes.
    pub idle_timeout: u64,
    /// System units that may be stopped and started again without anybody's work being lost.
    pub restartable: Vec<String>,
    /// Whether programs that start meanwhile get the loaded driver's libraries.
    pub heal: Heal,
    /// When a reload may begin by itself, see [`crate::Window`]; empty for at any time.
    pub window: Vec<String>,
    /// The time zone of the windows, by its name in the time zone database; empty for the system's own.
    pub window_zone: String,
    /// By how many seconds at most machines begin one after the other; 0 for not.
    pub jitter: u64,
}

impl Default for Upgrade {
    fn default() -> Self {
        const RESTARTABLE: [&str; 7] = [
            "nvidia-persistenced.service",
            "nvidia-dcgm.service",
            "nvidia-dcgm-exporter.service",
            "nvidia-fabricmanager.service",
            "nvidia-imex.service",
            "nvidia-powerd.service",
            "nvidia-topologyd.service",
        ];
        Self {
            policy: Policy::WhenIdle,
            idle_timeout: 7 * 24 * 60 * 60,
            restartable: RESTARTABLE.map(str::to_owned).into(),
            heal: Heal::Ask,
            window: Vec::new(),
            window_zone: String::new(),
            jitter: 0,
        }
    }
}

/// What to do about modules of an old driver in the initramfs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StaleInitramfs {
    /// Say so.
    #[default]
    Warn,
    /// Regenerate it.
    Rebuild,
}

/// What to do about the next boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Initramfs {
    /// Where the initramfs of the running kernel holds another driver than the disk.
    pub stale: StaleInitramfs,
}
