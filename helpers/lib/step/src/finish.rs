//! The end of a run: nothing left to give back, or a list of what is not.

use anyhow::Result;
use ledger::{Outcome, Run, Step};

use crate::{Context, system_is_stopping};

/// What to do about things that could not be given back so far.
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
/// The ledger cannot be read or written, or the machine cannot be looked at.
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
    let differences = differences(&run)?;
    for difference in &differences {
        context.warn(difference);
        context.ledger.step_failed(Step::Rollback, difference)?;
    }
    let outcome = if !differences.is_empty() || !run.missing().is_empty() {
        Outcome::Degraded
    } else if run.committed {
        Outcome::Done
    } else {
        Outcome::RolledBack
    };
    context.ledger.close(outcome).map(Some)
}
