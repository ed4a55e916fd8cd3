// SPDX-License-Identifier: MIT
//! Units stopped and started, several at once, each with a result of its own: none waits for another's
//! error.

use std::time::{Duration, Instant};

use crate::{ActiveState, Error, Follower, Job, LoadState, Mode, SystemState, patience};

/// How a unit came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Up {
    /// It ran already.
    Already,
    /// It was started.
    Started,
    /// Its start is in the queue, behind something else.
    Queued,
}

/// Why a unit is not down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDown {
    /// The manager does not stop it, for this reason.
    Refused(String),
    /// It still runs: the state.
    Up(String),
}

/// Stops `units`, all at once, and reads their states back at the end. Each is waited for as long as its own
/// `TimeoutStopSec=` says, and none beyond `limit`. The word beside each says that it goes along with
/// another: the manager may then refuse its own stop. `tell` gets the result of each, by its index.
pub fn stop_each(
    follower: &mut Follower,
    units: &[(&str, bool)],
    limit: Instant,
    mut tell: impl FnMut(usize, Result<(), NotDown>),
) {
    let mut jobs = Vec::new();
    let mut refused: Vec<Option<String>> = vec![None; units.len()];
    for (at, (name, along)) in units.iter().enumerate() {
        match follower.stop(name) {
            Ok(job) => {
                // One that is gone by now has none any more.
                let own = follower.manager().stop_timeout(name).unwrap_or(patience::DEFAULT);
                jobs.push((job, patience::longest(own)));
            }
            // Gone by itself meanwhile.
            Err(Error::NoSuchUnit { .. }) => {}
            Err(Error::Refused { .. }) if *along => {}
            Err(error) => refused[at] = Some(text(&error)),
        }
    }
    // One may wait for another that has to stop first: its time begins then.
    let longest: Vec<Duration> = jobs.iter().map(|(_, longest)| *longest).collect();
    for (at, (job, _)) in jobs.iter().enumerate() {
        let deadline = patience::until(Instant::now(), limit, &longest[at..]);
        // What counts is the state that is read back.
        if follower.wait(job, deadline).is_err() {
            break;
        }
    }
    for (at, (name, _)) in units.iter().enumerate() {
        let now = follower.manager().unit(name);
        tell(
            at,
            match (now, refused[at].take()) {
                (Ok(unit), _) if !unit.active.is_up() => Ok(()),
                (_, Some(why)) => Err(NotDown::Refused(why)),
                (Ok(unit), None) => Err(NotDown::Up(format!("{} ({})", unit.active, unit.sub))),
                (Err(error), None) => Err(NotDown::Up(text(&error))),
            },
        );
    }
}

/// A start that is under way.
struct Begun {
    at: usize,
    job: Job,
    /// When its main process was started last before, to see whether it is a new one.
    before: Option<u64>,
}

/// Starts `units`, all at once, and waits for `patience` at most. `revive` puts back the file of one that
/// the manager does not know, and says whether there was one. `tell` gets the result of each, by its index.
pub fn start_each(
    follower: &mut Follower,
    units: &[&str],
    patience: Duration,
    revive: &mut dyn FnMut(&str) -> std::io::Result<bool>,
    mut tell: impl FnMut(usize, Result<Up, String>),
) {
    let mut begun = Vec::new();
    for (at, name) in units.iter().enumerate() {
        match begin(follower, name, revive) {
            Ok(None) => tell(at, Ok(Up::Already)),
            Ok(Some((job, before))) => begun.push(Begun { at, job, before }),
            Err(why) => tell(at, Err(why)),
        }
    }
    // While the machine boots, what is started may be ordered after the unit that this runs in.
    let booting = matches!(follower.manager().state(), Ok(SystemState::Starting | SystemState::Initializing));
    let deadline = if booting { Instant::now() } else { Instant::now() + patience };
    for Begun { at, job, before } in begun {
        let result = match follower.wait(&job, deadline) {
            Ok(ended) => match outcome(follower, units[at], before) {
                Ok(None) => Ok(Up::Started),
                Ok(Some(why)) => Err(format!("its start ended with {ended}: {why}")),
                Err(error) => Err(text(&error)),
            },
            Err(Error::Deadline { .. }) => match follower.manager().unit(units[at]) {
                Ok(now) if now.active == ActiveState::Activating && !booting => {
                    Err(format!("it is still starting after {} s", patience.as_secs()))
                }
                Ok(now) if now.active.is_up() => Ok(Up::Started),
                // Not begun: what it waits for may be the end of this very step.
                Ok(_) => Ok(Up::Queued),
                Err(error) => Err(text(&error)),
            },
            Err(error) => Err(text(&error)),
        };
        tell(at, result);
    }
}

/// Queues the start of a unit; none if it runs already.
fn begin(
    follower: &Follower,
    name: &str,
    revive: &mut dyn FnMut(&str) -> std::io::Result<bool>,
) -> Result<Option<(Job, Option<u64>)>, String> {
    let look = || follower.manager().unit(name).map_err(|error| text(&error));
    let mut now = look()?;
    if now.load == LoadState::NotFound
        && revive(name).map_err(|error| format!("put its file back: {error}"))?
    {
        now = look()?;
    }
    // The manager refuses the start of a unit that waits for its own next try.
    let is_between = now.active == ActiveState::Activating && now.sub.starts_with("auto-restart");
    if now.active.is_up() && now.active != ActiveState::Deactivating && !is_between {
        return Ok(None);
    }
    let before = follower.manager().service(name).ok().map(|service| service.started_usec);
    let job = match is_between {
        true => follower.manager().restart(name, Mode::Replace),
        false => follower.start(name),
    };
    Ok(Some((job.map_err(|error| text(&error))?, before)))
}

/// Why a unit whose start has ended does not run; none if it does.
fn outcome(follower: &Follower, name: &str, before: Option<u64>) -> Result<Option<String>, Error> {
    let now = follower.manager().unit(name)?;
    if now.active.is_up() {
        return Ok(None);
    }
    if now.active == ActiveState::Failed {
        return Ok(Some(format!("it failed ({})", now.sub)));
    }
    // One that does its work and ends has run if its main process is a new one.
    let service = follower.manager().service(name).ok();
    let ran = service.is_some_and(|service| before.is_some_and(|before| service.started_usec > before));
    Ok((!ran).then(|| "it does not run; its conditions may not hold".to_owned()))
}

/// An error with its causes, on one line.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
