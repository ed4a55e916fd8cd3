// SPDX-License-Identifier: MIT
//! What a run would do, as preflight finds it and as `nvidia-reload plan --json` shows it.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use ledger::Step;
use serde::{Deserialize, Serialize};

use crate::{Exit, Reason, Root, Stop, is_slurmd};

/// The name and version of the JSON that `nvidia-reload plan --json` prints.
pub const PLAN_SCHEMA: &str = "nvidia-reload.plan/1";

/// The plan of the run that began last, or was refused last, in a directory that is empty after a boot. Root's
/// alone: command lines are in it.
pub(crate) const PATH: &str = "/run/nvidia-reload/plan.json";

/// Whether a run may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing speaks against it.
    Ready,
    /// It may not: see the reasons.
    Refused,
    /// No reload can help: see the reasons.
    RebootRequired,
}

impl Verdict {
    /// The exit code that says so.
    pub fn exit(self) -> Exit {
        match self {
            Verdict::Ready => Exit::Done,
            Verdict::Refused => Exit::Refused,
            Verdict::RebootRequired => Exit::RebootRequired,
        }
    }
}

/// What a run would do to one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Who does it.
    pub step: Step,
    /// To what, as the ledger would name it.
    pub object: String,
    /// What is done, in words: `stop, start again afterwards`.
    pub what: String,
    /// Why it has to be.
    pub why: String,
    /// The processes concerned.
    pub pids: Vec<i32>,
    /// Whether it comes back by itself; false for a killed process.
    pub comes_back: bool,
}

/// The driver's version where it is loaded and where the next load would take it from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// `/sys/module/nvidia/version`; none when the driver is not loaded.
    pub loaded: Option<String>,
    /// The version that the module file on disk declares; none without one for this kernel.
    pub on_disk: Option<String>,
}

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_SCHEMA`].
    pub schema: String,
    /// When it became that of a run, in microseconds of CLOCK_MONOTONIC; not there before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub made_usec: u64,
    /// A reset of the GPUs rather than a reload.
    #[serde(default)]
    pub reset: bool,
    /// Whether it may begin.
    pub verdict: Verdict,
    /// Why not; empty when it may.
    pub reasons: Vec<Reason>,
    /// What deserves attention and does not stop a run.
    pub warnings: Vec<Reason>,
    /// From which version to which.
    pub driver: Versions,
    /// The modules that would be unloaded, in that order, and loaded again in reverse.
    pub modules: Vec<String>,
    /// What would be done to whom, in order.
    pub actions: Vec<Action>,
    /// What is set on the GPUs, and would be set again.
    #[serde(default)]
    pub settings: Vec<ledger::Settings>,
    /// Who may have a GPU and cannot be asked: engines that do not answer, references to the driver that
    /// nothing found accounts for.
    #[serde(default)]
    pub unknown: Vec<String>,
}

impl Plan {
    /// One of which nothing is known but that it is refused.
    pub fn refused(reasons: Vec<Reason>) -> Self {
        Self {
            schema: PLAN_SCHEMA.into(),
            made_usec: 0,
            reset: false,
            verdict: Verdict::Refused,
            reasons,
            warnings: Vec::new(),
            driver: Versions::default(),
            modules: Vec::new(),
            actions: Vec::new(),
            settings: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// The same where what came after it was made ends the run before it begins.
    pub fn ended_by(self, stop: &Stop) -> Self {
        match stop {
            Stop::Refused(reasons) | Stop::NotInThisRun(reasons) => {
                Self { verdict: Verdict::Refused, reasons: reasons.clone(), ..self }
            }
            Stop::RebootRequired(reasons) => {
                Self { verdict: Verdict::RebootRequired, reasons: reasons.clone(), ..self }
            }
        }
    }

    /// Leaves it for the command that asked for the run, as the plan of the run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn leave(&mut self, root: &Root) -> Result<()> {
        let path = root.path(PATH);
        self.made_usec = monotonic_usec();
        let text = serde_json::to_vec(self).context("encode the plan")?;
        files::replace(&path, 0o600, &text).with_context(|| format!("write {}", path.display()))
    }

    /// The plan of the run that began, or was refused, after `since_usec` of CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// There is a plan, and it cannot be read or understood.
    pub fn of_run(root: &Root, since_usec: u64) -> Result<Option<Self>> {
        let path = root.path(PATH);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let plan: Self =
            serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))?;
        Ok(Some(plan).filter(|plan| plan.made_usec >= since_usec))
    }

    /// Who would lose work by the run, in words, with the processes: all that is stopped, but for the units
    /// that are `restartable`; and who may be there and cannot be asked. What is taken from a console comes
    /// back, and nothing works on it.
    pub fn users(&self, restartable: &[String]) -> Vec<(String, Vec<i32>)> {
        let is_user = |action: &&Action| match action.step {
            Step::DrainContainers | Step::KillHolders => true,
            Step::StopUnits => !restartable.contains(&action.object) && !only_starts(&action.object),
            _ => false,
        };
        let named = |action: &Action| (format!("{} ({})", action.object, action.why), action.pids.clone());
        let unknown = self.unknown.iter().map(|who| (who.clone(), Vec::new()));
        self.actions.iter().filter(is_user).map(named).chain(unknown).collect()
    }
}

// serde gives a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// CLOCK_MONOTONIC, which systemd stamps processes with, in microseconds.
pub fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// Whether a unit runs nothing itself: it would only start what does.
fn only_starts(unit: &str) -> bool {
    is_slurmd(unit) || [".socket", ".timer", ".path"].iter().any(|suffix| unit.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(actions: &[(Step, &str)]) -> Plan {
        let action = |(step, object): &(Step, &str)| Action {
            step: *step,
            object: (*object).into(),
            what: String::new(),
            why: "why".into(),
            pids: vec![7],
            comes_back: true,
        };
        Plan {
            verdict: Verdict::Ready,
            actions: actions.iter().map(action).collect(),
            ..Plan::refused(Vec::new())
        }
    }

    #[test]
    fn the_plan_of_a_run_is_read_by_who_asked_for_that_run() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert_eq!(Plan::of_run(&root, 0).expect("reads"), None);
        fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        let stop = Stop::RebootRequired(vec![Reason::new("a", "b")]);
        let mut plan = plan_of(&[]).ended_by(&stop);
        assert_eq!((plan.verdict, plan.verdict.exit()), (Verdict::RebootRequired, Exit::RebootRequired));
        let began = monotonic_usec();
        plan.leave(&root).expect("writes");
        let later = plan.made_usec + 1;
        assert_eq!(Plan::of_run(&root, began).expect("reads"), Some(plan));
        assert_eq!(Plan::of_run(&root, later).expect("reads"), None, "of an earlier run");
        fs::write(root.path(PATH), "{").expect("writes");
        assert!(format!("{:#}", Plan::of_run(&root, 0).expect_err("is none")).contains("plan.json"));
    }

    #[test]
    fn only_what_nobody_misses_may_be_stopped() {
        let restartable = ["nvidia-dcgm.service".to_owned()];
        let idle = plan_of(&[
            (Step::StopUnits, "nvidia-dcgm.service"),
            (Step::StopUnits, "training.timer"),
            (Step::StopUnits, "slurmd.service"),
            (Step::UnbindVt, "console vtcon1"),
            (Step::RmmodChain, "module nvidia"),
        ]);
        assert_eq!(idle.users(&restartable), []);
        for busy in [
            (Step::DrainContainers, "docker container job"),
            (Step::KillHolders, "process 7 (train)"),
            (Step::StopUnits, "training.service"),
            // A user's own, of the same name.
            (Step::StopUnits, "nvidia-dcgm.service of user 1000"),
        ] {
            assert_eq!(plan_of(&[busy]).users(&restartable), [(format!("{} (why)", busy.1), vec![7])]);
        }
    }

    #[test]
    fn who_cannot_be_asked_may_be_there() {
        let plan = Plan { unknown: vec!["Podman".into()], ..plan_of(&[]) };
        assert_eq!(plan.users(&[]), [("Podman".to_owned(), Vec::new())]);
    }
}
