// SPDX-License-Identifier: MIT
//! systemd over D-Bus: what units are, jobs followed to their end.
//!
//! All calls block and are bounded in time. Nothing here runs `systemctl`, and nothing reloads the
//! manager: that would take the GPU from running containers.

#![forbid(unsafe_code)]

mod connect;
mod error;
mod follow;
#[cfg(test)]
mod fuzz;
mod job;
mod login;
mod manager;
mod orders;
mod patience;
mod proxies;
mod relay;
mod signals;
#[cfg(test)]
mod tests;
mod unit;

pub use error::Error;
pub use follow::{Event, Follower};
pub use job::{Job, JobResult};
pub use login::{Blocker, blockers, release_session};
pub use manager::{Manager, Mode};
pub use orders::{NotDown, Up, start_each, stop_each};
pub use patience::longest;
pub use signals::UnitChange;
pub use unit::{ActiveState, Dependents, Listed, LoadState, Service, Standing, SystemState, Unit};

/// Whether the machine is shutting down.
///
/// Asks PID 1 itself where that is allowed: the bus daemon is among the first to go, and a step
/// that is undone during a shutdown would learn nothing from it.
///
/// # Errors
/// Neither PID 1 nor the bus could be asked.
pub fn is_stopping() -> Result<bool, Error> {
    Ok(Manager::system()?.state()? == SystemState::Stopping)
}
