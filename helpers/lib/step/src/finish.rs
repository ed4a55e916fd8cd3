// SPDX-License-Identifier: MIT
//! The end of a run: nothing left to restore, or a list of what is not.

use anyhow::{Result, bail};
use ledger::{Outcome, Run, State, Step};

use crate::{Context, Message, failure, system_is_stopping};

/// What to do about things that could not be restored so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// Leave the run open: somebody will try again.
    Keep,
    /// Everything was tried: close the run with the list.
    GiveUp,
}

/// Closes the open run if it can be, and returns it closed.
///
/// `differences` reads back what differs from the machine as it should be now; a difference means
/// that the run ends as degraded, whatever the records of its acts say. None is returned when no
/// run is open, or when it stays open.
///
/// # Errors
/// The ledger cannot be read or written, the machine cannot be looked at, or the run was closed and
/// something is not restored.
pub fn finish(
    context: &Context,
    leftovers: Leftovers,
    differences: impl FnOnce(&Run) -> Result<Vec<String>>,
) -> Result<Option<Run>> {
    let Some(run) = context.ledger.read()? else { return Ok(None) };
    if run.missing().iter().any(|act| act.is_outstanding())
        && (leftovers == Leftovers::Keep || system_is_stopping()?)
    {
        return Ok(None);
    }
    let mut differences = differences(&run)?;
    // What a damaged line said may have to be restored still.
    differences.extend(run.damaged.iter().map(|line| format!("the ledger is damaged: {line}")));
    for difference in &differences {
        context.warn(difference);
        // The run is closed all the same, as degraded.
        if let Err(error) = context.ledger.step_failed(Step::Rollback, difference) {
            context.warn(format!("the ledger does not have this: {error:#}"));
        }
    }
    let outcome = if !differences.is_empty() || !run.missing().is_empty() {
        Outcome::Degraded
    } else if run.committed {
        Outcome::Done
    } else {
        Outcome::RolledBack
    };
    if outcome == Outcome::Degraded {
        let missing: Vec<String> = run.missing().iter().map(|act| act.object.to_string()).collect();
        let reason = differences.iter().cloned().chain(missing).collect::<Vec<_>>().join("; ");
        failure::save(context, Step::Rollback, &format!("not restored: {reason}"));
    }
    let run = context.ledger.close(outcome)?;
    report(context, &run)?;
    Ok(Some(run))
}

fn done(reset: bool) -> &'static str {
    match reset {
        true => "done: the GPUs are reset and everything is restored",
        false => "done: the new driver works and everything is restored",
    }
}

/// Says how the run went, by name; what is not restored is an error.
fn report(context: &Context, run: &Run) -> Result<()> {
    let of_run = ("NVIDIA_RELOAD_RUN", run.id.as_str());
    for process in run.killed() {
        let what = format!("terminated and not restarted: process {} ({})", process.pid, process.command);
        let pid = process.pid.to_string();
        context.event(Message::ProcessEnded, what, &[of_run, ("OBJECT_PID", &pid)]);
    }
    for (step, reason) in &run.failures {
        context.warn(format!("{step} failed: {reason}"));
    }
    match run.outcome {
        Some(Outcome::Done) => context.event(Message::RunDone, done(run.snapshot.reset), &[of_run]),
        Some(Outcome::RolledBack) if run.cancelled => {
            context.event(Message::RunCancelled, "the run was cancelled: everything is as it was", &[of_run]);
        }
        Some(Outcome::RolledBack) if run.failures.is_empty() => {
            context.event(Message::RunCancelled, "everything is as it was", &[of_run]);
        }
        Some(Outcome::RolledBack) => {
            context.event(Message::RunRolledBack, "everything is as it was", &[of_run])
        }
        Some(Outcome::Degraded) | None => {
            let mut missing = Vec::new();
            for act in run.missing() {
                let object = act.object.to_string();
                let what = match &act.state {
                    State::Lost(reason) | State::UndoFailed(reason) => {
                        format!("not restored: {object}: {reason}")
                    }
                    _ => format!("not restored: {object}"),
                };
                let fields = [of_run, ("NVIDIA_RELOAD_OBJECT", object.as_str())];
                context.event(Message::NotRestored, what, &fields);
                missing.push(object);
            }
            let what = "the run is over, and not everything is as it should be";
            context.event(Message::RunDegraded, what, &[of_run]);
            bail!("{what}: {}", missing.join(", "));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_brings_no_new_driver() {
        assert!(!done(true).contains("driver"));
        assert!(done(false).contains("the new driver works"));
    }
}
