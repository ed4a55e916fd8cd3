// SPDX-License-Identifier: MIT
//! A container brought down or up: look, take one step, look again.
//!
//! What counts is the state read back, never an order's answer. So an engine that dies in the
//! middle costs time and nothing else: when it is back, the look tells what is left to do.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{Client, Error, Inspect, Phase};

/// How long an engine may be away, and a container between two states.
const DEADLINE: Duration = Duration::from_secs(120);

/// How many orders it takes at most: two on the way, and each once more, since an engine that went
/// away over an order may or may not have heard it.
const TRIES: u32 = 4;

/// The exit status of a container whose first process was ended by SIGKILL.
const KILLED: i64 = 128 + 9;

/// How a container got where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was there when first looked at.
    Already,
    /// It was brought there.
    Brought,
    /// It was started and its work was done at once: its first process ended with status 0.
    Finished,
    /// The engine has it no more.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Down,
    Up { paused: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Move {
    Arrived,
    Wait,
    Stop,
    Start,
    Pause,
    Unpause,
    Lost(String),
}

/// What to do next.
fn next(phase: &Phase, goal: Goal) -> Move {
    match (phase, goal) {
        (Phase::Unknown(state), _) => Move::Lost(format!("the engine reports the state {state:?}")),
        (Phase::Stopping | Phase::Removing, _) => Move::Wait,
        (Phase::Running | Phase::Restarting, Goal::Down) => Move::Stop,
        // Podman refuses to stop what is frozen, and a frozen process gets no SIGTERM.
        (Phase::Paused, Goal::Down) => Move::Unpause,
        (Phase::Down, Goal::Down) => Move::Arrived,
        (Phase::Down, Goal::Up { .. }) => Move::Start,
        (Phase::Running, Goal::Up { paused: true }) => Move::Pause,
        (Phase::Restarting, Goal::Up { paused: true }) => Move::Wait,
        // It was not paused when it was taken: who paused it since meant it.
        (Phase::Running | Phase::Restarting | Phase::Paused, Goal::Up { .. }) => Move::Arrived,
    }
}

/// Stops a container: the stop signal, and SIGKILL after `grace`.
///
/// # Errors
/// It still runs, or that is not known.
pub async fn bring_down(client: &Client, id: &str, grace: Duration) -> Result<Ended, Error> {
    reach(client, id, Goal::Down, grace).await
}

/// Starts a container, and pauses it if it was paused.
///
/// # Errors
/// It does not run, or that is not known.
pub async fn bring_up(client: &Client, id: &str, paused: bool) -> Result<Ended, Error> {
    reach(client, id, Goal::Up { paused }, Duration::ZERO).await
}

/// Waits until a container's health check says that it is healthy. Otherwise returns what it says, in the
/// engine's word: `unhealthy` at once, `starting` after the time.
///
/// # Errors
/// It does not run any more, or that is not known.
pub async fn become_healthy(client: &Client, id: &str, time: Duration) -> Result<Option<String>, Error> {
    let deadline = Instant::now() + time;
    let mut pause = Duration::from_millis(20);
    loop {
        let container = client.inspect(id).await?;
        if !matches!(container.phase(), Phase::Running | Phase::Paused) {
            return Err(Error::Odd(format!("it is {:?} meanwhile", container.phase())));
        }
        let health = match container.health() {
            None | Some("healthy") => return Ok(None),
            Some(health) => health.to_owned(),
        };
        if health == "unhealthy" || Instant::now() >= deadline {
            return Ok(Some(health));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

async fn reach(client: &Client, id: &str, goal: Goal, grace: Duration) -> Result<Ended, Error> {
    let mut deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(20);
    let mut moved = false;
    let mut started = false;
    let mut tries = 0;
    let mut refused: Option<(Move, Error)> = None;
    loop {
        let container = match client.inspect(id).await {
            Ok(container) => container,
            Err(Error::Gone) => return Ok(Ended::Gone),
            Err(error @ (Error::Unreachable { .. } | Error::TimedOut(_))) => {
                // What it did meanwhile is the engine's doing: it may have taken the container along.
                client.note_away();
                started = false;
                wait(&mut pause, deadline, || error).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let step = next(&container.phase(), goal);
        if started && step == Move::Start {
            if container.exit_code() != KILLED || tries == TRIES {
                return finished(&container);
            }
            // An engine that dies takes what it started along, and where systemd holds its socket no
            // request shows that it was away: the next one answers (seen with Docker 26).
            client.note_away();
            started = false;
        }
        match step {
            Move::Arrived if moved => return Ok(Ended::Brought),
            Move::Arrived => return Ok(Ended::Already),
            Move::Lost(reason) => return Err(Error::Odd(reason)),
            Move::Wait => {
                wait(&mut pause, deadline, || Error::Odd(format!("it is still {:?}", container.phase())))
                    .await?;
                continue;
            }
            _ => {}
        }
        // The same order again: the state did not follow it. Only an engine that went away over it is
        // asked again; to repeat what was refused would hide why.
        if let Some((_, error)) = refused.take_if(|(order, _)| *order == step)
            && (tries == TRIES || !matches!(error, Error::Unreachable { .. }))
        {
            return Err(error);
        }
        if tries == TRIES {
            return Err(Error::Odd(format!("it is still {:?}", container.phase())));
        }
        tries += 1;
        let result = match step {
            Move::Stop => client.stop(id, grace).await,
            Move::Start => client.start(id).await,
            Move::Pause => client.pause(id).await,
            Move::Unpause => client.unpause(id).await,
            Move::Arrived | Move::Wait | Move::Lost(_) => Ok(()),
        };
        moved = true;
        // The time that an order took is not the engine's absence.
        deadline = Instant::now() + DEADLINE;
        match result {
            Ok(()) => started |= step == Move::Start,
            Err(error) => {
                if matches!(error, Error::Unreachable { .. }) {
                    client.note_away();
                }
                refused = Some((step, error));
            }
        }
    }
}

/// A container that was started and is down again.
fn finished(container: &Inspect) -> Result<Ended, Error> {
    match container.exit_code() {
        0 => Ok(Ended::Finished),
        code => Err(Error::Odd(format!("it was started and exited at once, with exit status {code}"))),
    }
}

async fn wait(pause: &mut Duration, deadline: Instant, error: impl FnOnce() -> Error) -> Result<(), Error> {
    if Instant::now() >= deadline {
        return Err(error());
    }
    sleep(*pause).await;
    *pause = (*pause * 2).min(Duration::from_millis(500));
    Ok(())
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
