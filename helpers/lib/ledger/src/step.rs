// SPDX-License-Identifier: MIT
//! The steps of a run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A step of a run, in the order in which the steps run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Refuses, or opens the run.
    Preflight,
    /// Stops the containers that have a GPU.
    DrainContainers,
    /// Stops the systemd units that own holders.
    StopUnits,
    /// Ends the processes without an owner.
    KillHolders,
    /// Takes the console from NVIDIA's framebuffer.
    UnbindVt,
    /// Resets the GPUs; only in a reset.
    GpuReset,
    /// Gives back what was set on the GPUs, which goes with the driver: no unit of its own.
    Settings,
    /// Unloads the modules.
    RmmodChain,
    /// Exchanges the driver's files on disk, where that was asked for; puts the old ones back.
    InstallDriver,
    /// Loads the modules.
    ModprobeChain,
    /// Compares what is loaded now with what should be.
    Verify,
    /// Gives everything back.
    Restore,
    /// Ends a run that failed.
    Rollback,
}

impl Step {
    /// All steps of a reload, in order.
    pub const ALL: [Step; 10] = [
        Step::Preflight,
        Step::DrainContainers,
        Step::StopUnits,
        Step::KillHolders,
        Step::UnbindVt,
        Step::RmmodChain,
        Step::InstallDriver,
        Step::ModprobeChain,
        Step::Verify,
        Step::Restore,
    ];

    /// All steps of a reset, in order.
    pub const RESET: [Step; 6] = [
        Step::Preflight,
        Step::DrainContainers,
        Step::StopUnits,
        Step::KillHolders,
        Step::UnbindVt,
        Step::GpuReset,
    ];

    /// The steps that take something and restore it, in the order of the taking: those of a reload,
    /// and the settings, which go with the driver.
    pub const TAKING: [Step; 11] = [
        Step::Preflight,
        Step::DrainContainers,
        Step::StopUnits,
        Step::KillHolders,
        Step::UnbindVt,
        Step::Settings,
        Step::RmmodChain,
        Step::InstallDriver,
        Step::ModprobeChain,
        Step::Verify,
        Step::Restore,
    ];

    /// The name in file names, unit names and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Step::Preflight => "preflight",
            Step::DrainContainers => "drain-containers",
            Step::StopUnits => "stop-units",
            Step::KillHolders => "kill-holders",
            Step::UnbindVt => "unbind-vt",
            Step::GpuReset => "gpu-reset",
            Step::Settings => "settings",
            Step::RmmodChain => "rmmod-chain",
            Step::InstallDriver => "install-driver",
            Step::ModprobeChain => "modprobe-chain",
            Step::Verify => "verify",
            Step::Restore => "restore",
            Step::Rollback => "rollback",
        }
    }

    /// The systemd unit that runs the step.
    pub fn unit(self) -> String {
        format!("nvidia-reload-{}.service", self.name())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
