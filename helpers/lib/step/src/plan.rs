//! What a run would do, as preflight finds it and as `nvidia-reload plan --json` shows it.

use ledger::Step;
use serde::{Deserialize, Serialize};

use crate::Reason;

/// The name and version of the JSON that `nvidia-reload plan --json` prints.
pub const PLAN_SCHEMA: &str = "nvidia-reload.plan/1";

/// There while nvidia-reset.target has its run, which preflight opens as a reset then. Names the GPUs,
/// a line each; all where it is empty.
pub const RESET_REQUEST: &str = "/run/nvidia-reload/reset";

/// There for a run that is to begin only if nobody loses work by it: preflight refuses it otherwise.
pub const IF_IDLE_REQUEST: &str = "/run/nvidia-reload/if-idle";

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
    /// Who would lose work by the run, in words, with the processes: all that is stopped, but for the units
    /// that are `restartable`; and who may be there and cannot be asked. What is taken from a console comes
    /// back, and nobody works on it.
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

/// Whether a unit runs nothing itself: it would only start one that does.
fn only_starts(unit: &str) -> bool {
    [".socket", ".timer", ".path"].iter().any(|suffix| unit.ends_with(suffix))
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
            schema: PLAN_SCHEMA.into(),
            reset: false,
            verdict: Verdict::Ready,
            reasons: Vec::new(),
            warnings: Vec::new(),
            driver: Versions::default(),
            modules: Vec::new(),
            actions: actions.iter().map(action).collect(),
            settings: Vec::new(),
            unknown: Vec::new(),
        }
    }

    #[test]
    fn only_what_nobody_misses_may_be_stopped() {
        let restartable = ["nvidia-dcgm.service".to_owned()];
        let idle = plan_of(&[
            (Step::StopUnits, "nvidia-dcgm.service"),
            (Step::StopUnits, "training.timer"),
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
