// SPDX-License-Identifier: MIT
//! The jobs that Slurm has on this node.
//!
//! An allocation may hold nothing open and may have no process here: only Slurm knows it. A unit of its own asks Slurm,
//! since Slurm's programs use the network, which no step may. If Slurm does not answer, each job with a process here
//! counts as one with a GPU.

#![forbid(unsafe_code)]

mod answer;
mod ask;

use std::fmt;
use std::fs;

use anyhow::{Context as _, Result, bail};
use step::{Order, Root, is_slurmd, monotonic_usec, order_unit};

use answer::Answer;
pub use ask::answer;

/// What asks.
const UNIT: &str = "nvidia-reload-slurm.service";

/// The answer. For root only: the names of users are in it.
const PATH: &str = "/run/nvidia-reload/slurm.json";

/// A job on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: String,
    /// Whose it is, where Slurm says.
    pub user: Option<String>,
    /// Its processes here.
    pub pids: Vec<i32>,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "Slurm job {} of user {user}", self.id),
            None => write!(f, "Slurm job {}", self.id),
        }
    }
}

/// Slurm on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slurm {
    /// The node's name; none where Slurm was not asked.
    pub node: Option<String>,
    /// Why Slurm could not be asked.
    pub silent: Option<String>,
    /// Whether it starts no job here: the node is drained or down.
    pub is_closed: bool,
    /// Whether `slurmd` runs.
    pub runs: bool,
    /// The service that `slurmd` is; none where it is none that can be stopped and started.
    pub unit: Option<String>,
    /// The jobs that have a GPU, or may have one.
    pub busy: Vec<Job>,
    /// The others.
    pub others: Vec<Job>,
}

impl Slurm {
    /// What to do about the jobs.
    pub fn remedy(&self) -> String {
        format!(
            "drain the node and wait until they have ended: {}",
            holders::drain_command(self.node.as_deref())
        )
    }
}

/// Looks at the processes and asks Slurm. None where there is no Slurm on this machine.
///
/// # Errors
/// The processes cannot be looked at.
pub fn look(root: &Root) -> Result<Option<Slurm>> {
    let Some(before) = holders::slurm(root)? else { return Ok(None) };
    let answer = match before.daemon {
        Some(_) => ask(root),
        None => Err(anyhow::anyhow!("slurmd does not run")),
    };
    // Whatever was started meanwhile is here and not in the answer: it counts.
    let now = holders::slurm(root)?.unwrap_or_default();
    Ok(Some(sort(now, answer)))
}

/// Looks at the processes only: for a reset of some GPUs, of which those that are held are known. None where there is
/// no Slurm on this machine.
///
/// # Errors
/// The processes cannot be looked at.
pub fn look_at_processes(root: &Root) -> Result<Option<Slurm>> {
    let jobs_are_others = |local| {
        let found = sort(local, Ok(Answer::default()));
        Slurm { others: found.busy, busy: Vec::new(), ..found }
    };
    Ok(holders::slurm(root)?.map(jobs_are_others))
}

/// Has the unit ask, and reads the answer.
fn ask(root: &Root) -> Result<Answer> {
    let began = monotonic_usec();
    if !order_unit(Order::Start, UNIT)? {
        bail!("there is no {UNIT}");
    }
    let path = root.path(PATH);
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let answer: Answer =
        serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))?;
    // Two may ask at once, and one answer is for both.
    if answer.written_usec < began {
        bail!("{UNIT} left no answer");
    }
    Ok(answer)
}

fn sort(local: holders::Slurm, answer: Result<Answer>) -> Slurm {
    let unit = local.daemon.as_ref().and_then(|daemon| daemon.unit.clone()).filter(|unit| is_slurmd(unit));
    let mut slurm = Slurm { runs: local.daemon.is_some(), unit, ..Slurm::default() };
    let mut here = local.jobs;
    match answer {
        Ok(answer) => {
            for listed in answer.jobs {
                let pids = here.remove(&listed.id).unwrap_or_default();
                let job = Job { id: listed.id, user: Some(listed.user), pids };
                if listed.has_gpu { slurm.busy.push(job) } else { slurm.others.push(job) }
            }
            (slurm.node, slurm.silent, slurm.is_closed) = (answer.node, answer.error, answer.is_closed);
        }
        Err(error) => slurm.silent = Some(format!("{error:#}")),
    }
    slurm.busy.extend(here.into_iter().map(|(id, pids)| Job { id, user: None, pids }));
    slurm
}

#[cfg(test)]
mod tests {
    use super::*;
    use answer::Listed;
    use holders::SlurmDaemon;

    fn local(jobs: &[(&str, i32)]) -> holders::Slurm {
        let daemon = SlurmDaemon { unit: Some("slurmd.service".into()), ..SlurmDaemon::default() };
        let jobs = jobs.iter().map(|(job, pid)| ((*job).to_owned(), vec![*pid])).collect();
        holders::Slurm { daemon: Some(daemon), jobs }
    }

    fn said(jobs: &[(&str, bool)]) -> Answer {
        let listed =
            |(id, has_gpu): &(&str, bool)| Listed { id: (*id).into(), user: "ada".into(), has_gpu: *has_gpu };
        Answer { node: Some("n1".into()), jobs: jobs.iter().map(listed).collect(), ..Answer::default() }
    }

    fn ids(jobs: &[Job]) -> Vec<&str> {
        jobs.iter().map(|job| job.id.as_str()).collect()
    }

    #[test]
    fn an_allocation_counts_without_a_process_and_a_process_without_an_allocation() {
        let slurm = sort(
            local(&[("7", 70), ("8", 80), ("9", 90)]),
            Ok(said(&[("6", true), ("7", true), ("8", false)])),
        );
        assert_eq!((ids(&slurm.busy), ids(&slurm.others)), (vec!["6", "7", "9"], vec!["8"]));
        assert_eq!(slurm.busy[1].pids, [70]);
        assert_eq!(slurm.busy[0].to_string(), "Slurm job 6 of user ada");
        assert!(slurm.remedy().contains("NodeName=n1 State=DRAIN"), "{}", slurm.remedy());
        assert_eq!((slurm.unit.as_deref(), slurm.silent), (Some("slurmd.service"), None));
    }

    #[test]
    fn where_slurm_does_not_answer_every_job_counts() {
        for answer in [
            Err(anyhow::anyhow!("squeue: no end within 12 s")),
            Ok(Answer { error: Some("squeue: no end within 12 s".into()), ..Answer::default() }),
        ] {
            let slurm = sort(local(&[("7", 70)]), answer);
            assert_eq!(ids(&slurm.busy), ["7"]);
            assert_eq!(slurm.silent.as_deref(), Some("squeue: no end within 12 s"));
            assert!(!slurm.is_closed && slurm.node.is_none());
        }
    }

    #[test]
    fn a_slurmd_of_no_service_is_not_stopped() {
        let mut local = local(&[]);
        local.daemon = Some(SlurmDaemon { unit: Some("boot-all.service".into()), ..SlurmDaemon::default() });
        let slurm = sort(local, Ok(said(&[])));
        assert_eq!((slurm.runs, slurm.unit), (true, None));
    }
}
