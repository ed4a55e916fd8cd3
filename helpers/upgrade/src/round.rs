// SPDX-License-Identifier: MIT
//! One look at everything: what is to be done with the request now.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use request::{Request, State, package_manager};
use step::{Config, Inhibitor, Policy, Reason, Root, Upgrade, inhibitors, open_ledger};

use crate::disk::{Disk, look};
use crate::idle::users;
use crate::wait::Wait;
use crate::window::closed;

/// A package manager may let go of its lock without ending.
const PACKAGES: Duration = Duration::from_secs(1);

/// So long an upgrade that is not at its end may leave the package manager's lock free: unattended-upgrades
/// works in steps, and what builds modules may begin after them. Packages that come later ask again.
const UNFINISHED: Duration = Duration::from_secs(15 * 60);

/// Nothing tells of the end of a run, or of an upgrade that failed half-way.
const RESCAN: Duration = Duration::from_secs(30);

/// So many inhibitors are named.
const NAMED: usize = 5;

/// What is to be done.
pub(crate) enum Next {
    /// There is nothing to reload, for this reason.
    Drop(String),
    /// To look again, when something has happened.
    Wait { state: State, because: Vec<Reason>, wait: Wait },
    /// To leave it to a person, or to another request.
    Leave { state: State, because: Vec<Reason> },
    /// To reload.
    Go {
        /// Only if still no work would be lost by it.
        if_idle: bool,
    },
}

/// Looks at the machine. `unfinished` is since when the packages are half installed, and the package manager is
/// not at work.
pub(crate) fn next(root: &Root, request: &Request, unfinished: &mut Option<Instant>) -> Result<Next> {
    let config = match Config::load(root) {
        Ok(config) => config,
        Err(error) => {
            let reason = format!("the configuration cannot be used: {error:#}");
            return Ok(Next::Leave {
                state: State::Refused,
                because: vec![Reason::new(reason, "fix the file; `nvidia-reload request` tries again")],
            });
        }
    };
    let next = moment(root, &config, request, unfinished)?;
    Ok(match next {
        Next::Wait { because, .. } if has_waited(request, &config.upgrade, SystemTime::now()) => {
            Next::Leave { state: State::GivenUp, because }
        }
        next => next,
    })
}

fn moment(root: &Root, config: &Config, request: &Request, unfinished: &mut Option<Instant>) -> Result<Next> {
    let since = unfinished.take();
    let policy = config.upgrade.policy;
    if policy == Policy::Never {
        return Ok(Next::Drop("upgrade.policy is \"never\" in the configuration".into()));
    }
    if let Some(busy) = package_manager(root)? {
        return Ok(Next::Wait {
            state: State::WaitingForPackages,
            because: vec![Reason::new(busy.to_string(), "")],
            wait: Wait::new(vec![busy.pid], PACKAGES),
        });
    }
    if let Some(run) = open_ledger(root)?.read()? {
        return Ok(Next::Wait {
            state: State::WaitingForIdle,
            because: vec![Reason::new(
                format!("run {} is open", run.id),
                "`nvidia-reload status` shows what it is",
            )],
            wait: Wait::new(Vec::new(), RESCAN),
        });
    }
    match look(root)? {
        Disk::NotLoaded => return Ok(Next::Drop("the driver is not loaded".into())),
        Disk::Managed(reason) => return Ok(Next::Drop(reason.what)),
        Disk::Match(version) => return Ok(Next::Drop(format!("{version} is loaded and on disk"))),
        Disk::Unfinished(reason) => {
            *unfinished = Some(since.unwrap_or_else(Instant::now));
            return Ok(rest_of_packages(reason, *unfinished));
        }
        // Packages that bring it ask again.
        Disk::OutOfReach(reason) => {
            return Ok(Next::Leave { state: State::NotInstalled, because: vec![reason] });
        }
        Disk::CannotUnload(reason) => {
            return Ok(Next::Leave { state: State::RebootRequired, because: vec![reason] });
        }
        Disk::Differs => {}
    }
    match policy {
        Policy::Never | Policy::Now => return Ok(Next::Go { if_idle: false }),
        Policy::Ask => return Ok(Next::Leave { state: State::Asking, because: Vec::new() }),
        Policy::WhenIdle => {}
    }
    if let Some(closed) = closed(root, &config.upgrade, request.asked_usec)? {
        return Ok(Next::Wait {
            state: State::WaitingForWindow,
            because: vec![Reason::new(closed.why, "")],
            wait: Wait::new(Vec::new(), closed.again),
        });
    }
    let blocked = inhibitors(root)?;
    if !blocked.is_empty() {
        return Ok(inhibited(&blocked));
    }
    let users = users(root, &config.upgrade.restartable)?;
    if users.is_empty() {
        return Ok(Next::Go { if_idle: true });
    }
    let again = users.again;
    let (because, pids) = users.into_reasons();
    Ok(Next::Wait { state: State::WaitingForIdle, because, wait: Wait::new(pids, again) })
}

/// Waits until nothing blocks a shutdown any more: whatever does would not outlive the loss of the GPUs either.
fn inhibited(blocked: &[Inhibitor]) -> Next {
    let named = blocked.iter().take(NAMED);
    let because = named.map(|inhibitor| Reason::new(inhibitor.to_string(), Inhibitor::REMEDY)).collect();
    Next::Wait { state: State::WaitingForInhibitor, because, wait: Wait::new(Vec::new(), RESCAN) }
}

/// Waits for the rest of the packages, which are half installed `since` then; not for ever.
fn rest_of_packages(reason: Reason, since: Option<Instant>) -> Next {
    let because = vec![reason];
    match since.is_some_and(|since| since.elapsed() >= UNFINISHED) {
        true => Next::Leave { state: State::Refused, because },
        false => {
            Next::Wait { state: State::WaitingForPackages, because, wait: Wait::new(Vec::new(), RESCAN) }
        }
    }
}

/// Whether the request has waited for as long as the configuration says.
///
/// # Errors
/// The configuration cannot be used.
pub(crate) fn is_late(root: &Root, request: &Request) -> Result<bool> {
    Ok(has_waited(request, &Config::load(root)?.upgrade, SystemTime::now()))
}

fn has_waited(request: &Request, upgrade: &Upgrade, now: SystemTime) -> bool {
    let asked = UNIX_EPOCH + Duration::from_micros(request.asked_usec);
    // A clock that was set back does not make it late.
    let waited = now.duration_since(asked).unwrap_or_default();
    upgrade.idle_timeout != 0 && waited.as_secs() >= upgrade.idle_timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_do_not_come_are_not_waited_for() {
        let next = |since| rest_of_packages(Reason::new("half", "finish"), since);
        let ago = |time: Duration| Instant::now().checked_sub(time);
        assert!(matches!(next(ago(Duration::ZERO)), Next::Wait { state: State::WaitingForPackages, .. }));
        assert!(matches!(next(ago(UNFINISHED / 2)), Next::Wait { .. }));
        let Next::Leave { state, because } = next(ago(UNFINISHED)) else { panic!("waits") };
        assert_eq!((state, because), (State::Refused, vec![Reason::new("half", "finish")]));
    }

    #[test]
    fn a_request_waits_for_as_long_as_it_may() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let request = request::ask(&Root::at(directory.path()), "a").expect("asks");
        let at =
            |seconds| UNIX_EPOCH + Duration::from_micros(request.asked_usec) + Duration::from_secs(seconds);
        let late = |timeout, seconds| {
            has_waited(&request, &Upgrade { idle_timeout: timeout, ..Upgrade::default() }, at(seconds))
        };
        assert!(!late(10, 9) && late(10, 10));
        assert!(!late(0, 1 << 30), "0 is for ever");
        assert!(!has_waited(&request, &Upgrade::default(), UNIX_EPOCH), "the clock was set back");
    }
}
