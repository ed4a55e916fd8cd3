// SPDX-License-Identifier: MIT
//! Our own units, as the system's manager has them; the sibling that speaks D-Bus asks it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ledger::Step;
use serde::{Deserialize, Serialize};

/// The sibling.
const ASKED: &str = "/usr/libexec/nvidia-reload/stop-units";

/// How long it may take: the bus, then PID 1.
const TIME: Duration = Duration::from_secs(90);

/// Reached when the driver is reloaded; then it ends.
pub const RELOAD: &str = "nvidia-reload.target";

/// Reached when the GPUs are reset; then it ends.
pub const RESET: &str = "nvidia-reset.target";

/// Holds the machine without workloads.
pub const DRAINED: &str = "nvidia-drained.target";

/// Holds the machine without driver.
pub const OFFLINE: &str = "nvidia-offline.target";

/// Whether a unit of the system is Slurm's daemon of a node. It runs nothing itself: it starts jobs.
pub fn is_slurmd(unit: &str) -> bool {
    matches!(unit, "slurmd.service" | "slurm.service") || unit.starts_with("slurmd@")
}

/// Which of our units are up, and which are about to be started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OurUnits {
    /// Those that are active, or on their way there or back.
    pub up: Vec<String>,
    /// Those that have a job that starts them.
    pub starting: Vec<String>,
}

impl OurUnits {
    /// Asks.
    ///
    /// # Errors
    /// The manager does not answer.
    pub fn ask() -> Result<Self> {
        ask(Path::new(ASKED))
    }

    /// Whether `unit` is up.
    pub fn is_up(&self, unit: &str) -> bool {
        self.up.iter().any(|up| up == unit)
    }

    /// Whether `unit` is about to be started.
    pub fn is_starting(&self, unit: &str) -> bool {
        self.starting.iter().any(|starting| starting == unit)
    }

    /// The targets that hold the machine, the one that takes more first.
    pub fn holding(&self) -> Vec<&'static str> {
        [OFFLINE, DRAINED].into_iter().filter(|target| self.is_up(target)).collect()
    }

    /// Whether a step may do more than drain the machine: where that is drained on purpose, only to take the driver
    /// out as well.
    pub fn may_go_beyond_drained(&self) -> bool {
        let is_drained = self.is_up(DRAINED) || self.is_starting(DRAINED);
        let goes_offline = self.is_up(OFFLINE) || self.is_starting(OFFLINE);
        let goes_through = self.is_starting(RELOAD) || self.is_starting(RESET);
        !is_drained || (goes_offline && !goes_through)
    }

    /// Whether a step is up or about to be.
    pub fn has_steps(&self) -> bool {
        steps().any(|step| self.is_up(&step) || self.is_starting(&step))
    }

    /// Whether a step or a target is about to be started, or at work: then it has a job.
    pub fn is_at_work(&self) -> bool {
        let targets = [RELOAD, RESET, DRAINED, OFFLINE];
        steps().any(|step| self.is_starting(&step)) || targets.iter().any(|target| self.is_starting(target))
    }
}

fn steps() -> impl Iterator<Item = String> {
    Step::ALL.into_iter().chain([Step::GpuReset]).map(Step::unit)
}

fn ask(helper: &Path) -> Result<OurUnits> {
    let asked = || format!("{} our-units", helper.display());
    let mut command = Command::new(helper);
    let (status, output) = bounded::child(command.arg("our-units"), Instant::now() + TIME, bounded::BODY)
        .with_context(|| format!("run {}", asked()))?;
    if !status.success() {
        bail!("{} ended with {status}", asked());
    }
    serde_json::from_slice(&output).with_context(|| format!("understand {}", asked()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_machine_and_who_works_on_it() {
        let units = |up: &[&str], starting: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            OurUnits { up: owned(up), starting: owned(starting) }
        };
        let preflight = Step::Preflight.unit();
        let nothing = units(&[], &[]);
        assert!(nothing.holding().is_empty() && !nothing.has_steps());
        let both = units(&[DRAINED, OFFLINE, &preflight], &[]);
        assert_eq!((both.holding(), both.has_steps()), (vec![OFFLINE, DRAINED], true));
        assert!(!both.is_at_work() && units(&[], &[&preflight]).is_at_work());
        assert!(units(&[], &[&preflight]).has_steps());
        for (up, starting, expected) in [
            (&[][..], &[RELOAD][..], true),
            (&[DRAINED], &[OFFLINE], true),
            (&[DRAINED], &[RELOAD], false),
            (&[DRAINED], &[RELOAD, OFFLINE], false),
            // The target has failed already, and its other steps are still started.
            (&[DRAINED], &[], false),
            (&[], &[RELOAD, DRAINED], false),
        ] {
            assert_eq!(units(up, starting).may_go_beyond_drained(), expected, "{up:?} {starting:?}");
        }
        // Rollback is no step that owns a run.
        assert!(!units(&[&Step::Rollback.unit()], &[]).has_steps());
        assert!(ask(Path::new("/bin/false")).is_err() && ask(Path::new("/bin/true")).is_err());
    }
}
