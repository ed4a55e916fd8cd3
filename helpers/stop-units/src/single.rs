//! Single units, for siblings that speak no D-Bus themselves.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bus::{LoadState, Manager, Mode};
use step::{Away, NO_SUCH_UNIT};

use crate::felled;

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
    felled::forgive(&manager, unit);
    let mut follower = manager.follow(&[])?;
    let job = follower.start(unit)?;
    let result = follower.wait(&job, Instant::now() + PATIENCE)?;
    if !result.is_success() {
        bail!("the start of {unit} ended with {result}");
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
