// SPDX-License-Identifier: MIT
//! Whether work would be lost by a reload: known from the plan of the reload itself, since nothing
//! else knows of containers that only have a GPU, or of units that a stop takes along.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use holders::{Holder, Owner, scan};
use step::{PLAN_SCHEMA, Plan, Reason, Root, is_slurmd};

/// Who makes the plan.
const PREFLIGHT: &str = "/usr/libexec/nvidia-reload/preflight";

/// So many are named.
const NAMED: usize = 5;

/// Who holds a GPU may let go of it without ending, and others may come: a look at the processes is quick.
const RESCAN: Duration = Duration::from_secs(30);

/// A plan is not: it reads files of many megabytes, and asks engines and NVML.
const REPLAN: Duration = Duration::from_secs(300);

/// How long preflight may take to make one: its own waits, for the package manager too, end before.
const PLAN: Duration = Duration::from_secs(20 * 60);

/// Those who would lose work: in words, with their processes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Users {
    who: Vec<(String, Vec<i32>)>,
    /// When to look again, should none of the processes end before.
    pub(crate) again: Duration,
}

impl Users {
    pub(crate) fn is_empty(&self) -> bool {
        self.who.is_empty()
    }

    /// The first of them in words, and the processes of all.
    pub(crate) fn into_reasons(self) -> (Vec<Reason>, Vec<i32>) {
        let more = self.who.len().saturating_sub(NAMED);
        let named = self.who.iter().take(NAMED).map(|(what, _)| Reason::new(what.clone(), ""));
        let mut reasons: Vec<Reason> = named.collect();
        if more > 0 {
            reasons.push(Reason::new(format!("and {more} more"), "`nvidia-reload status` shows all"));
        }
        (reasons, self.who.into_iter().flat_map(|(_, pids)| pids).collect())
    }
}

/// Who uses the GPUs and is not of a unit that is `restartable`.
///
/// # Errors
/// It is not known.
pub(crate) fn users(root: &Root, restartable: &[String]) -> Result<Users> {
    // The plan asks the engines, and NVML: while there is somebody, it need not be made.
    let scan = scan(root)?;
    let mut busy: Vec<(Option<String>, Vec<&Holder>)> = Vec::new();
    for holder in scan.holders.iter().filter(|holder| !is_restartable(holder, restartable)) {
        let owner = owner(holder);
        match busy.iter_mut().find(|(known, _)| owner.is_some() && *known == owner) {
            Some((_, holders)) => holders.push(holder),
            None => busy.push((owner, vec![holder])),
        }
    }
    if !busy.is_empty() {
        let who = busy.into_iter().map(|(owner, holders)| {
            let pids = holders.iter().map(|holder| holder.pid).collect();
            (named(owner.as_deref(), &holders), pids)
        });
        return Ok(Users { who: who.collect(), again: RESCAN });
    }
    // A job may have been given a GPU and hold nothing: Slurm is asked, which is quick beside a plan.
    let jobs = slurm::look(root)?.map_or_else(Vec::new, |slurm| slurm.busy);
    if !jobs.is_empty() {
        let who = jobs.into_iter().map(|job| (job.to_string(), job.pids)).collect();
        return Ok(Users { who, again: RESCAN });
    }
    Ok(Users { who: plan()?.users(restartable), again: REPLAN })
}

/// The owner of a holder; none where it has none.
fn owner(holder: &Holder) -> Option<String> {
    match &holder.owner {
        // As long as the engines themselves show it.
        Owner::Container(container) => Some(format!("container {:.12}", container.id)),
        Owner::SystemUnit { unit, .. } => Some(unit.clone()),
        Owner::UserUnit { unit, uid, .. } => Some(format!("{unit} of user {uid}")),
        Owner::SlurmStep { job, .. } => Some(format!("Slurm job {job}")),
        Owner::Session { .. } | Owner::Process => None,
    }
}

/// What holds a GPU, in words: the owner with its processes, or the process.
fn named(owner: Option<&str>, holders: &[&Holder]) -> String {
    let process = |holder: &&Holder| format!("process {} ({})", holder.pid, holder.command_line());
    match (owner, holders) {
        (None, holders) => holders.iter().map(process).collect::<Vec<_>>().join(", "),
        (Some(owner), [holder]) => format!("{owner}: process {}", holder.pid),
        (Some(owner), holders) => {
            let pids: Vec<String> = holders.iter().take(NAMED).map(|holder| holder.pid.to_string()).collect();
            let more = holders.len() - pids.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{owner}: processes {}{more}", pids.join(", "))
        }
    }
}

fn is_restartable(holder: &Holder, restartable: &[String]) -> bool {
    // PID 1 keeps it for a service: the plan knows for which.
    let is_one = |unit: &String| restartable.contains(unit) || is_slurmd(unit);
    holder.pid == 1 || matches!(&holder.owner, Owner::SystemUnit { unit, .. } if is_one(unit))
}

fn plan() -> Result<Plan> {
    let (status, output) =
        bounded::child(Command::new(PREFLIGHT).arg("plan"), Instant::now() + PLAN, bounded::BODY)
            .with_context(|| format!("run {PREFLIGHT} plan"))?;
    // What it could not do it has said on our standard error; a refusal is an answer.
    let plan: Plan = serde_json::from_slice(&output)
        .with_context(|| format!("understand the output of {PREFLIGHT} plan ({status})"))?;
    if plan.schema != PLAN_SCHEMA {
        bail!("{PREFLIGHT} speaks {}, not {PLAN_SCHEMA}: install one version of everything", plan.schema);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn the_first_are_named_and_all_are_waited_for() {
        let who = (0..7).map(|pid| (format!("process {pid}"), vec![pid])).collect();
        let users = Users { who, again: RESCAN };
        let (reasons, pids) = users.into_reasons();
        assert_eq!(pids, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!((reasons.len(), reasons[5].what.as_str()), (6, "and 2 more"));
    }
}
