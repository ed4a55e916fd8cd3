// SPDX-License-Identifier: MIT
//! Asking the fleet's lock again, later each time.

use std::time::Duration;

use fleetlock::refused_since;
use step::{Config, Reason, Root, machine_id};

use crate::window::share;

/// After the first refusal.
const FIRST: u64 = 60;

/// After many.
const MOST: u64 = 600;

/// How often in a row there was no lease.
#[derive(Debug, Default)]
pub(crate) struct Refusals(u32);

impl Refusals {
    /// Why the run that was refused after `since_usec` of CLOCK_MONOTONIC has no lease, and when to ask again; none
    /// where it was refused for something else.
    pub(crate) fn again(&mut self, root: &Root, since_usec: u64) -> Option<(Reason, Duration)> {
        let server = Config::load(root).ok()?.fleet.lock;
        let reason = refused_since(root, since_usec, &server)?;
        self.0 = self.0.saturating_add(1);
        let machine = machine_id(root).unwrap_or_default();
        Some((reason, Duration::from_secs(pause(self.0, &machine))))
    }

    /// Something else came in between.
    pub(crate) fn end(&mut self) {
        self.0 = 0;
    }
}

/// How many seconds after the refusal with this number it is asked again: twice as long each time, and for each
/// machine a little otherwise, so that a fleet does not ask all at once.
fn pause(number: u32, machine: &str) -> u64 {
    let time = FIRST.checked_shl(number.saturating_sub(1)).filter(|time| time >> (number - 1) == FIRST);
    let time = time.unwrap_or(MOST).min(MOST);
    time + share(machine, time / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_later_each_time_and_not_for_ever_later() {
        let pauses: Vec<u64> = (1..8).map(|number| pause(number, "")).collect();
        assert_eq!(pauses, [60, 120, 240, 480, 600, 600, 600]);
        assert_eq!(pause(u32::MAX, ""), MOST);
        let machines = ["00000000000f", "000000000001", "00000000000a"].map(|machine| pause(1, machine));
        assert_eq!(machines, [75, 61, 70]);
    }

    #[test]
    fn another_refusal_is_not_one_of_the_lock() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert_eq!(Refusals::default().again(&root, 0), None);
    }
}
