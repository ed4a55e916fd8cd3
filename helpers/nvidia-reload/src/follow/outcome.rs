// SPDX-License-Identifier: MIT
//! How a run ended, from what systemd and the ledger say of it. No text is read.

use bus::JobResult;
use ledger::Run;
use step::Exit;

use crate::report::Outcome;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A run that ends by itself.
    Reload,
    /// One that stays.
    Stop,
    /// The end of one that stays, or of one left open.
    Restore,
}

/// What is known when all is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// What was asked for.
    pub asked: Goal,
    /// How the job of the target ended; none if it did not in time.
    pub job: Option<JobResult>,
    /// Whether every unit of the run has come to rest.
    pub settled: bool,
    /// How the step that failed first exited, if one did by itself.
    pub exit: Option<i32>,
    /// The run in the ledger: none if the start came to nothing before it opened one.
    pub run: Option<Run>,
    /// Whether the run was open before and is kept open by another target.
    pub staying: bool,
}

/// How the run ended.
pub fn outcome(facts: &Facts) -> Outcome {
    let Some(job) = &facts.job else { return Outcome::Unfinished };
    let Some(run) = &facts.run else { return without_run(facts, job) };
    match run.outcome {
        Some(ledger::Outcome::Done) => Outcome::Done,
        Some(ledger::Outcome::Degraded) => Outcome::Degraded,
        Some(ledger::Outcome::RolledBack) => match (facts.asked, job) {
            (Goal::Restore, _) => Outcome::Done,
            (_, JobResult::Canceled) => Outcome::Cancelled,
            // This command did not cancel it.
            _ if run.cancelled => Outcome::Cancelled,
            _ => Outcome::RolledBack,
        },
        None if facts.asked == Goal::Stop && job.is_success() => Outcome::Stopped,
        // It stays drained or offline, as it was.
        None if facts.staying && facts.settled && facts.exit == Some(Exit::Refused as i32) => {
            Outcome::Refused
        }
        // Nothing works on it any more, and it is not closed; or something does, and it takes long.
        None => Outcome::Unfinished,
    }
}

fn without_run(facts: &Facts, job: &JobResult) -> Outcome {
    match facts.exit {
        Some(status) if status == Exit::Refused as i32 => return Outcome::Refused,
        Some(status) if status == Exit::RebootRequired as i32 => return Outcome::RebootRequired,
        _ => {}
    }
    match (facts.asked, job) {
        _ if !facts.settled => Outcome::Unfinished,
        (_, JobResult::Canceled) => Outcome::Cancelled,
        (Goal::Restore, job) if job.is_success() => Outcome::NothingToDo,
        // A target that is reached without a run in the ledger has not done its work.
        _ => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Event;

    fn run(outcome: Option<ledger::Outcome>) -> Run {
        let closed: Vec<Event> = outcome.map(|outcome| Event::Closed { outcome }).into_iter().collect();
        golden::run(&closed)
    }

    #[test]
    fn a_step_that_refuses_leaves_the_machine_as_it_was() {
        let of = |exit, staying| {
            let run = Some(run(None));
            let job = Some(JobResult::Dependency);
            outcome(&Facts { asked: Goal::Reload, job, settled: true, exit, run, staying })
        };
        assert_eq!(of(Some(3), true), Outcome::Refused);
        assert_eq!(of(Some(1), true), Outcome::Unfinished);
        assert_eq!(of(Some(3), false), Outcome::Unfinished);
    }

    fn of(asked: Goal, job: JobResult, exit: Option<i32>, run: Option<Run>) -> Outcome {
        outcome(&Facts { asked, job: Some(job), settled: true, exit, run, staying: false })
    }

    #[test]
    fn the_ledger_says_how_a_run_ended() {
        use ledger::Outcome::{Degraded, Done, RolledBack};
        for (asked, job, ended, expected) in [
            (Goal::Reload, JobResult::Done, Done, Outcome::Done),
            (Goal::Reload, JobResult::Done, Degraded, Outcome::Degraded),
            // A container that does not start fails restore: the driver is new all the same.
            (Goal::Reload, JobResult::Dependency, Degraded, Outcome::Degraded),
            (Goal::Reload, JobResult::Dependency, RolledBack, Outcome::RolledBack),
            (Goal::Reload, JobResult::Canceled, RolledBack, Outcome::Cancelled),
            (Goal::Reload, JobResult::Unseen, Done, Outcome::Done),
            (Goal::Stop, JobResult::Dependency, RolledBack, Outcome::RolledBack),
            (Goal::Restore, JobResult::Done, RolledBack, Outcome::Done),
            (Goal::Restore, JobResult::Done, Degraded, Outcome::Degraded),
        ] {
            assert_eq!(
                of(asked, job.clone(), None, Some(run(Some(ended)))),
                expected,
                "{asked:?} {job} {ended}"
            );
        }
    }

    #[test]
    fn an_open_run_is_what_a_stop_is_for_and_no_end_of_a_reload() {
        assert_eq!(of(Goal::Stop, JobResult::Done, None, Some(run(None))), Outcome::Stopped);
        assert_eq!(of(Goal::Stop, JobResult::Dependency, None, Some(run(None))), Outcome::Unfinished);
        assert_eq!(of(Goal::Reload, JobResult::Done, None, Some(run(None))), Outcome::Unfinished);
    }

    #[test]
    fn preflight_says_why_there_was_no_run() {
        let dependency = || JobResult::Dependency;
        assert_eq!(of(Goal::Reload, dependency(), Some(3), None), Outcome::Refused);
        assert_eq!(of(Goal::Stop, dependency(), Some(4), None), Outcome::RebootRequired);
        assert_eq!(of(Goal::Reload, dependency(), Some(1), None), Outcome::Failed);
        assert_eq!(of(Goal::Reload, JobResult::Canceled, None, None), Outcome::Cancelled);
        // Reached, but without any work.
        assert_eq!(of(Goal::Reload, JobResult::Done, None, None), Outcome::Failed);
        assert_eq!(of(Goal::Restore, JobResult::Done, None, None), Outcome::NothingToDo);
    }

    #[test]
    fn what_takes_too_long_is_unfinished() {
        let facts = Facts {
            asked: Goal::Reload,
            job: None,
            settled: false,
            exit: None,
            run: Some(run(None)),
            staying: false,
        };
        assert_eq!(outcome(&facts), Outcome::Unfinished);
    }
}
