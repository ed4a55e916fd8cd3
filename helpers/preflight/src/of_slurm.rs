// SPDX-License-Identifier: MIT
//! Slurm's jobs are never killed: while one has a GPU, or may have one, there is no run. And while there is none,
//! none is to begin in the middle of a run.

use std::collections::BTreeMap;

use engines::Survey;
use holders::{Holder, Owner, drain_command, job_of};
use ledger::Step;
use slurm::{Job, Slurm};
use step::{Action, Root, is_slurmd};

use crate::findings::Findings;
use crate::of_users::{described, devices, processes};

/// More jobs than this are counted and not named.
const MOST_NAMED: usize = 12;

/// What of a job is in the way, by its number.
type Held<'a> = BTreeMap<String, Vec<&'a Holder>>;

/// The jobs that hold a GPU, and those that have a container with one.
pub(crate) fn held<'a>(root: &Root, survey: &Survey, holders: &'a [Holder]) -> Held<'a> {
    let mut held = Held::new();
    for holder in holders {
        if let Owner::SlurmStep { job, .. } = &holder.owner {
            held.entry(job.clone()).or_default().push(holder);
        }
    }
    let containers = survey.containers.iter().filter(|container| container.pid > 1);
    for job in containers.filter_map(|container| job_of(root, container.pid)) {
        held.entry(job).or_default();
    }
    held
}

/// Refuses a run that jobs are in the way of, and keeps others away: the unit is returned that has to be stopped
/// for that, beside those that the actions stop already.
pub(crate) fn assess(
    slurm: Option<&Slurm>,
    mut held: Held<'_>,
    actions: &mut Vec<Action>,
    findings: &mut Findings,
) -> Option<String> {
    let none = Slurm::default();
    let slurm = slurm.unwrap_or(&none);
    let mut reasons: Vec<String> = Vec::new();
    for job in &slurm.busy {
        reasons.push(match held.remove(&job.id) {
            Some(holders) => holding(job, &holders),
            None if slurm.silent.is_some() => {
                format!("{job} runs here, and Slurm does not report whether it has a GPU")
            }
            None => format!("{job} has a GPU"),
        });
    }
    for (id, holders) in held {
        let known = slurm.others.iter().find(|job| job.id == id);
        let job = known.cloned().unwrap_or(Job { id, user: None, pids: Vec::new() });
        reasons.push(holding(&job, &holders));
    }
    let is_refused = !reasons.is_empty();
    let more = reasons.len().saturating_sub(MOST_NAMED);
    for reason in reasons.into_iter().take(MOST_NAMED) {
        findings.refuse(reason, slurm.remedy());
    }
    if more > 0 {
        findings.refuse(format!("{more} more Slurm jobs have a GPU"), slurm.remedy());
    }
    if let Some(why) = &slurm.silent {
        findings.warn(
            format!("Slurm does not report which jobs have a GPU: {why}"),
            "see whether slurmctld runs (`scontrol ping`); until it answers, every job with a process here counts",
        );
    }
    if is_refused { None } else { keep_away(slurm, actions, findings) }
}

fn holding(job: &Job, holders: &[&Holder]) -> String {
    match holders {
        [] => format!("{job} has a container with a GPU"),
        [holder] => format!("{job} holds {} by {}", devices(holder), described(holder)),
        [holder, ..] => {
            let pids: Vec<i32> = holders.iter().map(|holder| holder.pid).collect();
            format!("{job} holds {} by {}", devices(holder), processes(&pids))
        }
    }
}

/// A job that began in the middle of a run would find no GPU. `slurmd` starts none while it is stopped, and Slurm
/// waits for it; it is stopped only where no job is, of which it would be in charge.
fn keep_away(slurm: &Slurm, actions: &mut Vec<Action>, findings: &mut Findings) -> Option<String> {
    let drain = drain_command(slurm.node.as_deref());
    let is_stopped =
        actions.iter().find(|action| action.step == Step::StopUnits && is_slurmd(&action.object));
    match (is_stopped, &slurm.others[..]) {
        (Some(action), [job, ..]) => {
            findings.refuse(
                format!("{} has to be stopped ({}), and {job} runs here", action.object, action.why),
                slurm.remedy(),
            );
            return None;
        }
        (Some(_), []) => return None,
        _ if !slurm.runs || slurm.is_closed => return None,
        _ => {}
    }
    let Some(unit) = slurm.unit.as_ref().filter(|_| slurm.others.is_empty()) else {
        let why = if slurm.unit.is_none() {
            "slurmd is of no service that can be stopped"
        } else {
            "slurmd is not stopped while other jobs run"
        };
        findings.warn(format!("Slurm may start a job here while the driver is out: {why}"), drain);
        return None;
    };
    let at = actions.iter().position(|action| action.step > Step::StopUnits).unwrap_or(actions.len());
    let action = Action {
        step: Step::StopUnits,
        object: unit.clone(),
        what: "stop, start again afterwards".into(),
        why: "Slurm would start jobs while the driver is out".into(),
        pids: Vec::new(),
        comes_back: true,
    };
    actions.insert(at, action);
    Some(unit.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use step::Verdict;

    fn job(id: &str, user: Option<&str>) -> Job {
        Job { id: id.into(), user: user.map(str::to_owned), pids: Vec::new() }
    }

    fn node() -> Slurm {
        Slurm { node: Some("n1".into()), runs: true, unit: Some("slurmd.service".into()), ..Slurm::default() }
    }

    /// The verdict, the reasons and warnings, and the unit.
    fn of(slurm: &Slurm, held: &[&str], stopped: &[&str]) -> (Verdict, Vec<String>, Option<String>) {
        let held = held.iter().map(|job| ((*job).to_owned(), Vec::new())).collect();
        let mut findings = Findings::default();
        let mut actions: Vec<Action> = stopped
            .iter()
            .map(|unit| Action {
                step: Step::StopUnits,
                object: (*unit).to_owned(),
                what: String::new(),
                why: "it holds nvidia0".into(),
                pids: Vec::new(),
                comes_back: true,
            })
            .collect();
        let unit = assess(Some(slurm), held, &mut actions, &mut findings);
        assert_eq!(actions.len(), stopped.len() + usize::from(unit.is_some()));
        let (verdict, reasons, warnings) = findings.verdict();
        (verdict, reasons.iter().chain(&warnings).map(ToString::to_string).collect(), unit)
    }

    #[test]
    fn a_job_with_a_gpu_is_a_refusal_that_says_how_to_drain() {
        let busy = Slurm { busy: vec![job("7", Some("ada"))], others: vec![job("8", Some("bob"))], ..node() };
        let (verdict, said, unit) = of(&busy, &["8", "9"], &[]);
        assert_eq!((verdict, unit), (Verdict::Refused, None));
        assert!(said[0].starts_with("Slurm job 7 of user ada has a GPU: drain the node"), "{said:?}");
        assert!(said[0].contains("NodeName=n1 State=DRAIN"), "{said:?}");
        assert!(said[1].starts_with("Slurm job 8 of user bob has a container"), "{said:?}");
        assert!(said[2].starts_with("Slurm job 9 has a container"), "{said:?}");
        let many = Slurm { busy: (0..14).map(|id| job(&id.to_string(), None)).collect(), ..node() };
        let (_, said, _) = of(&many, &[], &[]);
        assert_eq!(said.len(), 13);
        assert!(said[12].starts_with("2 more Slurm jobs"), "{said:?}");
    }

    #[test]
    fn no_job_begins_in_the_middle() {
        let stopped = (Verdict::Ready, Vec::new(), Some("slurmd.service".to_owned()));
        assert_eq!(of(&node(), &[], &[]), stopped);
        // Slurm starts none by itself, or slurmd is stopped as one that holds a GPU.
        assert_eq!(of(&Slurm { is_closed: true, ..node() }, &[], &[]).2, None);
        assert_eq!(of(&node(), &[], &["slurmd.service"]), (Verdict::Ready, Vec::new(), None));
        assert_eq!(of(&Slurm { runs: false, ..node() }, &[], &[]).2, None);
    }

    #[test]
    fn slurmd_is_not_stopped_beside_a_job() {
        let with = Slurm { others: vec![job("8", Some("bob"))], ..node() };
        let (verdict, said, unit) = of(&with, &[], &[]);
        assert_eq!((verdict, unit, said.len()), (Verdict::Ready, None, 1));
        assert!(said[0].contains("may start a job") && said[0].contains("State=DRAIN"), "{said:?}");
        let (verdict, said, unit) = of(&with, &[], &["slurmd.service"]);
        assert_eq!((verdict, unit), (Verdict::Refused, None));
        assert!(said[0].contains("it holds nvidia0") && said[0].contains("job 8 of user bob"), "{said:?}");
        let (verdict, said, unit) = of(&Slurm { unit: None, ..node() }, &[], &[]);
        assert_eq!((verdict, unit, said.len()), (Verdict::Ready, None, 1));
    }

    #[test]
    fn what_slurm_does_not_say_is_said() {
        let silent = Slurm { silent: Some("squeue ended with exit status: 1".into()), ..node() };
        let (verdict, said, _) = of(&silent, &[], &[]);
        assert_eq!(verdict, Verdict::Ready);
        assert!(said[0].contains("squeue ended") && said[0].contains("scontrol ping"), "{said:?}");
        let (verdict, said, _) = of(&Slurm { busy: vec![job("7", None)], ..silent }, &[], &[]);
        assert_eq!(verdict, Verdict::Refused);
        assert!(said[0].contains("Slurm job 7 runs here, and Slurm does not report"), "{said:?}");
    }
}
