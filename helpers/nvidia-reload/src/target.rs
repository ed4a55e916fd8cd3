// SPDX-License-Identifier: MIT
//! The targets, and which steps are in them.

use ledger::Step;

/// A subset of the steps that systemd runs in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Out with the driver, in again, everything back.
    Reload,
    /// The GPUs reset, everything back; the driver stays loaded.
    Reset,
    /// Workloads stopped, driver loaded; stays.
    Drained,
    /// Driver out; stays.
    Offline,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 4] = [Target::Reload, Target::Reset, Target::Drained, Target::Offline];

    /// The systemd unit.
    pub fn unit(self) -> &'static str {
        match self {
            Target::Reload => "nvidia-reload.target",
            Target::Reset => "nvidia-reset.target",
            Target::Drained => "nvidia-drained.target",
            Target::Offline => "nvidia-offline.target",
        }
    }

    /// The steps that bring the target about, in order.
    pub fn steps(self) -> &'static [Step] {
        // The stages of a drain are the first of a reload: see `Step::ALL`.
        match self {
            Target::Reload => &Step::ALL,
            Target::Reset => &Step::RESET,
            Target::Drained => &Step::ALL[..4],
            Target::Offline => &Step::ALL[..6],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_end_where_the_target_says() {
        assert_eq!(Target::Drained.steps().last(), Some(&Step::KillHolders));
        assert_eq!(Target::Offline.steps().last(), Some(&Step::RmmodChain));
        assert_eq!(Target::Reload.steps().last(), Some(&Step::Restore));
        assert_eq!(Target::Reset.steps().last(), Some(&Step::GpuReset));
    }
}
