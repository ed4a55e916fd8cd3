//! Ends a run that failed, was given up, or was cut off by a reboot.
//!
//! systemd has unwound the steps by then. This tries once more what they could not give back, reads
//! back that the machine is as it was, closes the run and says how it went.

use std::process::ExitCode;

use anyhow::{Result, bail};
use ledger::{Outcome, Run, Step};
use modules::differences;
use step::{Context, Leftovers, finish, undo_steps};

fn main() -> ExitCode {
    step::main(Step::Rollback, run, |_| Ok(()))
}

fn run(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else {
        // The unwinding gave everything back and closed the run. Or it was another start's run:
        // a queued rollback may come after a later run's success.
        return match context.ledger.last_closed()? {
            Some(last) => report(context, &last),
            None => {
                context.info("there is no run to roll back");
                Ok(())
            }
        };
    };
    let steps: Vec<Step> =
        Step::ALL.into_iter().rev().filter(|step| !run.outstanding(*step).is_empty()).collect();
    for problem in undo_steps(&steps) {
        context.warn(problem);
    }
    let closed =
        finish(context, Leftovers::GiveUp, |run| differences(&context.root, run, context.ledger.boot()))?;
    match closed {
        Some(closed) => report(context, &closed),
        None => {
            bail!("something is still to be given back, and the machine is going down: the next boot goes on")
        }
    }
}

fn report(context: &Context, run: &Run) -> Result<()> {
    for process in run.killed() {
        context.warn(format!(
            "ended, and does not come back by itself: process {} ({})",
            process.pid, process.command
        ));
    }
    match run.outcome {
        Some(Outcome::Done) => context.info(format!("run {} is done", run.id)),
        Some(Outcome::RolledBack) => {
            for (step, reason) in &run.failures {
                context.info(format!("{step} failed: {reason}"));
            }
            context.info(format!("run {} is rolled back: everything is as it was", run.id));
        }
        Some(Outcome::Degraded) | None => {
            let missing: Vec<String> = run.missing().iter().map(|act| act.object.to_string()).collect();
            bail!("run {} is over, and this is not back: {}", run.id, missing.join(", "));
        }
    }
    Ok(())
}
