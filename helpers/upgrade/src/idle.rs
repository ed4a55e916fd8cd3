//! Whether anybody would lose work by a reload: told by the plan of the reload itself, since nobody
//! else knows of containers that only have a GPU, or of units that a stop takes along.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use holders::{Holder, Owner, scan};
use step::{Action, PLAN_SCHEMA, Plan, Reason, Root};

/// Who makes the plan.
const PREFLIGHT: &str = "/usr/libexec/nvidia-reload/preflight";

/// So many are named.
const NAMED: usize = 5;

/// Those who would be stopped: in words, with their processes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Users(Vec<(String, Vec<i32>)>);

impl Users {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first of them in words, and the processes of all.
    pub(crate) fn into_reasons(self) -> (Vec<Reason>, Vec<i32>) {
        let more = self.0.len().saturating_sub(NAMED);
        let named = self.0.iter().take(NAMED).map(|(what, _)| Reason::new(what.clone(), ""));
        let mut reasons: Vec<Reason> = named.collect();
        if more > 0 {
            reasons.push(Reason::new(format!("and {more} more"), "`nvidia-reload status` shows all"));
        }
        (reasons, self.0.into_iter().flat_map(|(_, pids)| pids).collect())
    }
}

/// Who uses the GPUs and is not of a unit that is `restartable`.
///
/// # Errors
/// It cannot be told.
pub(crate) fn users(root: &Root, restartable: &[String]) -> Result<Users> {
    // The plan asks the engines, and NVML: while there is somebody, it need not be made.
    let scan = scan(root)?;
    let busy: Vec<_> = scan
        .holders
        .iter()
        .filter(|holder| !is_restartable(holder, restartable))
        .map(|holder| (named(holder), vec![holder.pid]))
        .collect();
    if !busy.is_empty() {
        return Ok(Users(busy));
    }
    if let Some(unexplained) = scan.unexplained.first() {
        let what = format!("{unexplained} that nothing found accounts for");
        return Ok(Users(vec![(what, Vec::new())]));
    }
    Ok(of_plan(&plan()?, restartable))
}

/// A holder, and whose it is.
fn named(holder: &Holder) -> String {
    let owner = match &holder.owner {
        // As long as the engines themselves show it.
        Owner::Container(container) => format!(" in container {:.12}", container.id),
        Owner::SystemUnit { unit, .. } | Owner::UserUnit { unit, .. } => format!(" in {unit}"),
        Owner::SlurmStep { job, .. } => format!(" of Slurm job {job}"),
        Owner::Session { .. } | Owner::Process => String::new(),
    };
    format!("process {} ({}){owner}", holder.pid, holder.command_line())
}

fn is_restartable(holder: &Holder, restartable: &[String]) -> bool {
    // PID 1 keeps it for a service: the plan knows for which.
    holder.pid == 1 || matches!(&holder.owner, Owner::SystemUnit { unit, .. } if restartable.contains(unit))
}

/// Who is stopped by the plan; what is taken from a console comes back, and nobody works on it.
fn of_plan(plan: &Plan, restartable: &[String]) -> Users {
    let is_user = |action: &&Action| match action.step.name() {
        "drain-containers" | "kill-holders" => true,
        "stop-units" => !restartable.contains(&action.object) && !only_starts(&action.object),
        _ => false,
    };
    let named = |action: &Action| (format!("{} ({})", action.object, action.why), action.pids.clone());
    Users(plan.actions.iter().filter(is_user).map(named).collect())
}

/// Whether a unit runs nothing itself: it would only start one that does.
fn only_starts(unit: &str) -> bool {
    [".socket", ".timer", ".path"].iter().any(|suffix| unit.ends_with(suffix))
}

fn plan() -> Result<Plan> {
    let output = Command::new(PREFLIGHT)
        .arg("plan")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {PREFLIGHT}"))?;
    // What it could not do it has said on our standard error; a refusal is an answer.
    let plan: Plan = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("understand what {PREFLIGHT} plan says ({})", output.status))?;
    if plan.schema != PLAN_SCHEMA {
        bail!("{PREFLIGHT} speaks {}, not {PLAN_SCHEMA}: install one version of everything", plan.schema);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Step;
    use step::{Verdict, Versions};

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
        assert!(of_plan(&idle, &restartable).is_empty());
        for busy in [
            (Step::DrainContainers, "docker container job"),
            (Step::KillHolders, "process 7 (train)"),
            (Step::StopUnits, "training.service"),
            // A user's own, of the same name.
            (Step::StopUnits, "nvidia-dcgm.service of user 1000"),
        ] {
            let users = of_plan(&plan_of(&[busy]), &restartable);
            assert_eq!(users, Users(vec![(format!("{} (why)", busy.1), vec![7])]));
        }
    }

    #[test]
    fn the_first_are_named_and_all_are_waited_for() {
        let users = Users((0..7).map(|pid| (format!("process {pid}"), vec![pid])).collect());
        let (reasons, pids) = users.into_reasons();
        assert_eq!(pids, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!((reasons.len(), reasons[5].what.as_str()), (6, "and 2 more"));
    }
}
