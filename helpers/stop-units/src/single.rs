// SPDX-License-Identifier: MIT
//! Single units, for siblings that speak no D-Bus themselves.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bus::{ActiveState, Event, JobResult, LoadState, Manager, Mode};
use step::{Away, NO_SUCH_UNIT};

use crate::failed_services;

/// How long a start, or a stop, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a stop may take, whatever its unit says: the step that asks for it has 15 minutes for all.
const LIMIT: Duration = Duration::from_secs(300);

/// Starts a unit and waits until that has ended.
pub(crate) fn start(unit: &str) -> Result<ExitCode> {
    let manager = Manager::system()?;
    if manager.unit(unit)?.load != LoadState::Loaded {
        return Ok(ExitCode::from(NO_SUCH_UNIT));
    }
    // It may have hit its start limit: the toolkit's refresh does, where udev starts it again and again.
    failed_services::reset_failed(&manager, unit);
    let mut follower = manager.follow(&[])?;
    let job = follower.start(unit)?;
    let result = follower.wait(&job, Instant::now() + PATIENCE)?;
    if !result.is_success() {
        bail!("the start of {unit} ended with {result}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a unit, prints its status lines, and waits until its work has ended.
pub(crate) fn run(unit: &str, limit: Duration) -> Result<ExitCode> {
    let mut follower = Manager::system()?.follow(&[unit])?;
    let job = match follower.start(unit) {
        Ok(job) => job,
        Err(error) if error.is_no_such_unit() => return Ok(ExitCode::from(NO_SUCH_UNIT)),
        Err(error) => return Err(error.into()),
    };
    let until = Instant::now() + limit;
    let result = loop {
        match follower.next(until)? {
            Some(Event::JobEnded { job: ended, result }) if ended.path == job.path => break result,
            Some(Event::UnitChanged { change, .. }) => {
                if let Some(status) = change.status_text.filter(|status| !status.is_empty()) {
                    writeln!(io::stdout(), "{status}")?;
                }
            }
            Some(Event::Missed) => {
                if let Some(result) = follower.look_for(&job)? {
                    break result;
                }
            }
            Some(_) => {}
            None => bail!("{unit} has not ended within {} s", limit.as_secs()),
        }
    };
    // One that has done its work is at rest, as one that never ran; one that failed is known to have.
    let is_done = match result {
        JobResult::Unseen => follower.manager().unit(unit)?.active != ActiveState::Failed,
        ref result => result.is_success(),
    };
    if !is_done {
        let service = follower.manager().service(unit)?;
        let status =
            service.exit_status().map(|status| format!(", exit status {status}")).unwrap_or_default();
        bail!("{unit} ended with {result} ({}{status})", service.result);
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops a unit and starts it again, and waits until that has ended. What else is up and would go down with it is
/// not restarted.
pub(crate) fn restart(unit: &str) -> Result<ExitCode> {
    let manager = Manager::system()?;
    if manager.unit(unit)?.load != LoadState::Loaded {
        return Ok(ExitCode::from(NO_SUCH_UNIT));
    }
    for other in manager.dependents(unit)?.stopped_along() {
        if manager.unit(other)?.active.is_up() {
            bail!("{unit} is not restarted: {other} would go down with it");
        }
    }
    let mut follower = manager.follow(&[])?;
    let own = bus::longest(manager.stop_timeout(unit)?).min(LIMIT - PATIENCE);
    let job = manager.restart(unit, Mode::Fail)?;
    let result = follower.wait(&job, Instant::now() + own + PATIENCE)?;
    if !result.is_success() {
        bail!("the restart of {unit} ended with {result}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Has a unit started, without waiting for it; one that runs is stopped before, where `renew` says so.
pub(crate) fn queue(unit: &str, renew: bool) -> Result<ExitCode> {
    let manager = Manager::system()?;
    let queued = match renew {
        true => manager.restart(unit, Mode::Replace),
        false => manager.start(unit, Mode::Replace),
    };
    match queued {
        Err(bus::Error::NoSuchUnit { .. }) => Ok(ExitCode::from(NO_SUCH_UNIT)),
        queued => queued.map(|_| ExitCode::SUCCESS).map_err(Into::into),
    }
}

/// Prints when a unit went down last, and when it came up last.
pub(crate) fn away(unit: &str) -> Result<ExitCode> {
    let (left, back) = Manager::system()?.away(unit)?;
    println!("{}", serde_json::to_string(&Away { left, back })?);
    Ok(ExitCode::SUCCESS)
}

/// Has a unit stopped; waits for it where that is asked for.
pub(crate) fn stop(unit: &str, wait: bool) -> Result<ExitCode> {
    let manager = Manager::system()?;
    if !wait {
        manager.stop(unit, Mode::Replace)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut follower = manager.follow(&[])?;
    let own = bus::longest(manager.stop_timeout(unit)?).min(LIMIT);
    let job = follower.stop(unit)?;
    let result = follower.wait(&job, Instant::now() + own.max(PATIENCE))?;
    if !result.is_success() {
        bail!("the stop of {unit} ended with {result}");
    }
    Ok(ExitCode::SUCCESS)
}
