// SPDX-License-Identifier: MIT
//! The end of the lease: released when the driver works, kept where the run failed.

use anyhow::{Context as _, Result, bail};
use ledger::{Outcome, Run};
use step::{Context, Order, order_unit};

use crate::UNLOCK_UNIT;
use crate::lease::{Lease, State, lock};

/// What verifies the driver, and releases the lease where it works.
pub const STEADY: &str = "nvidia-reload-steady.service";

/// What a lease that is left needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// The run that has it is not over.
    Stays,
    /// Nothing was touched, or all is done.
    Release,
    /// Where the driver works.
    ReleaseIfVerified,
    /// Until a person has seen to it.
    Keep,
}

/// Sees to the lease when a run is over, or was refused. What cannot be done here is a warning: the lease stays, and
/// is shown by `nvidia-reload status`.
pub fn settle(context: &Context) {
    if let Err(error) = try_to_settle(context) {
        context.warn(format!("the lease of the fleet's lock is not released: {error:#}"));
    }
}

fn try_to_settle(context: &Context) -> Result<()> {
    // Most machines have none.
    if crate::read(&context.root)?.is_none() {
        return Ok(());
    }
    let locked = lock(&context.root)?;
    let Some(lease) = locked.read()? else { return Ok(()) };
    let open = context.ledger.read()?.is_some();
    let last = context.ledger.last_closed()?;
    let decision = decide(&lease, open, last.as_ref(), context.ledger.boot());
    match decision {
        Decision::Stays => Ok(()),
        // The unit tries until the server has taken that.
        Decision::Release => {
            locked.write(&lease.entered(State::Releasing))?;
            queue(UNLOCK_UNIT)
        }
        Decision::ReleaseIfVerified => {
            context.info(format!("{} is released when the driver is verified ({STEADY})", lease.name()));
            queue(STEADY)
        }
        Decision::Keep => {
            context.warn(format!(
                "{} is kept, since the run failed: no other machine of the group begins; when the GPUs work, \
                 `systemctl start {STEADY}` releases it",
                lease.name()
            ));
            Ok(())
        }
    }
}

fn decide(lease: &Lease, open: bool, last: Option<&Run>, boot: &str) -> Decision {
    let of_run = last.filter(|run| Some(&run.id) == lease.run.as_ref());
    match (lease.state, of_run) {
        _ if open => Decision::Stays,
        // Nothing was stopped: the run never began.
        (State::Asking | State::Releasing, _) => Decision::Release,
        (State::Held, None) => Decision::Stays,
        (State::Held, Some(run)) => match run.outcome {
            Some(Outcome::Done) => Decision::Release,
            // It was interrupted, or somebody ended it: it has not failed. A boot is a new beginning.
            Some(Outcome::RolledBack) if run.boot != boot || !has_failed(run) => Decision::ReleaseIfVerified,
            _ => Decision::Keep,
        },
    }
}

/// Whether a step failed that was not cancelled.
fn has_failed(run: &Run) -> bool {
    run.driver_failed || (run.has_failed() && !run.cancelled)
}

/// Has the lease released at the server, since the driver works. Whether there is one.
///
/// # Errors
/// A run is open, or the record cannot be written.
pub fn release(context: &Context) -> Result<bool> {
    let locked = lock(&context.root)?;
    let Some(lease) = locked.read()? else { return Ok(false) };
    if let Some(run) = context.ledger.read()? {
        bail!("{} is kept: run {} is open", lease.name(), run.id);
    }
    locked.write(&lease.entered(State::Releasing))?;
    Ok(true)
}

fn queue(unit: &str) -> Result<()> {
    match order_unit(Order::Queue, unit).with_context(|| format!("start {unit}"))? {
        true => Ok(()),
        false => bail!("there is no {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use golden::run;
    use ledger::{Event, Step};

    use super::*;

    #[test]
    fn a_lease_is_released_when_the_driver_works_and_kept_where_the_run_failed() {
        let failed = |cancelled| Event::StepFailed { step: Step::Verify, reason: "r".into(), cancelled };
        let closed = |outcome| Event::Closed { outcome };
        let lease = |state, run: Option<&str>| Lease {
            run: run.map(str::to_owned),
            ..Lease::new("http://lock".into(), "default".into(), "n1".into()).entered(state)
        };
        let held = || lease(State::Held, Some("r1"));
        let of = |lease: &Lease, events: &[Event], boot| decide(lease, false, Some(&run(events)), boot);
        let done = [Event::Committed, closed(Outcome::Done)];
        let rolled_back = [failed(false), closed(Outcome::RolledBack)];
        let degraded = [Event::Committed, failed(false), closed(Outcome::Degraded)];
        assert_eq!(of(&held(), &done, "b"), Decision::Release);
        assert_eq!(of(&held(), &rolled_back, "b"), Decision::Keep);
        assert_eq!(of(&held(), &degraded, "b"), Decision::Keep);
        assert_eq!(of(&held(), &degraded, "another"), Decision::Keep);
        // Cancelled, ended by `start`, interrupted; and what a boot has ended.
        assert_eq!(
            of(&held(), &[failed(true), closed(Outcome::RolledBack)], "b"),
            Decision::ReleaseIfVerified
        );
        assert_eq!(of(&held(), &[closed(Outcome::RolledBack)], "b"), Decision::ReleaseIfVerified);
        assert_eq!(of(&held(), &[closed(Outcome::RolledBack)], "another"), Decision::ReleaseIfVerified);
        // A later run was refused; that of the lease is open; it never began.
        assert_eq!(of(&lease(State::Held, Some("r0")), &done, "b"), Decision::Stays);
        assert_eq!(decide(&held(), true, None, "b"), Decision::Stays);
        assert_eq!(of(&lease(State::Asking, None), &done, "b"), Decision::Release);
        assert_eq!(of(&lease(State::Releasing, None), &rolled_back, "b"), Decision::Release);
    }
}
