//! Single units, for siblings that speak no D-Bus themselves.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bus::LoadState;
use step::NO_SUCH_UNIT;

use crate::{manager, patience};

/// How long a start, or a stop, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a stop may take, whatever its unit says: the step that asks for it has 15 minutes for all.
const LIMIT: Duration = Duration::from_secs(300);

/// Starts a unit and waits until that has ended.
pub(crate) fn start(unit: &str, user: Option<u32>) -> Result<ExitCode> {
    let manager = manager(user)?;
    if manager.unit(unit)?.load != LoadState::Loaded {
        return Ok(ExitCode::from(NO_SUCH_UNIT));
    }
    let mut follower = manager.follow(&[])?;
    let job = follower.start(unit)?;
    let result = follower.wait(&job, Instant::now() + PATIENCE)?;
    if !result.is_success() {
        bail!("the start of {unit} ended with {result}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Has a unit started, without waiting for it.
pub(crate) fn queue(unit: &str, user: Option<u32>) -> Result<ExitCode> {
    manager(user)?.start(unit, bus::Mode::Replace)?;
    Ok(ExitCode::SUCCESS)
}

/// Has a unit stopped; waits for it where that is asked for.
pub(crate) fn stop(unit: &str, wait: bool, user: Option<u32>) -> Result<ExitCode> {
    let manager = manager(user)?;
    if !wait {
        manager.stop(unit, bus::Mode::Replace)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut follower = manager.follow(&[])?;
    let own = patience::longest(manager.stop_timeout(unit)?, user).min(LIMIT);
    let job = follower.stop(unit)?;
    let result = follower.wait(&job, Instant::now() + own.max(PATIENCE))?;
    if !result.is_success() {
        bail!("the stop of {unit} ended with {result}");
    }
    Ok(ExitCode::SUCCESS)
}
