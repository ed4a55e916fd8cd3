// SPDX-License-Identifier: MIT
//! How long a unit may take to stop: its manager's own time, and a little more.

use std::time::{Duration, Instant};

/// From the end of the manager's time until the unit is seen to have stopped.
const MARGIN: Duration = Duration::from_secs(10);

/// systemd's own default of `TimeoutStopSec=`.
pub(crate) const DEFAULT: Option<Duration> = Some(Duration::from_secs(90));

/// How long a unit with this `TimeoutStopSec=` (none for infinity) takes at most to stop: its stop command
/// gets that time, and then SIGTERM gets it, before it is killed.
pub fn longest(own: Option<Duration>) -> Duration {
    own.map_or(Duration::MAX, |own| own.saturating_mul(2).saturating_add(MARGIN))
}

/// Until when units that stop from `now` on are waited for: for the one that takes longest, but not beyond
/// `limit`.
pub(crate) fn until(now: Instant, limit: Instant, longest: &[Duration]) -> Instant {
    let longest = longest.iter().max().copied().unwrap_or_default();
    now.checked_add(longest).map_or(limit, |until| until.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_its_own_time_before_it_is_given_up() {
        let now = Instant::now();
        let limit = now + Duration::from_secs(600);
        // Ignores SIGTERM: systemd kills it after 90 s, and that must be seen.
        assert!(until(now, limit, &[longest(DEFAULT)]) > now + Duration::from_secs(95));
        let slow = longest(Some(Duration::from_secs(200)));
        assert_eq!(until(now, limit, &[longest(DEFAULT), slow]), now + Duration::from_secs(410));
        assert_eq!(until(now, limit, &[longest(None)]), limit, "infinity");
        assert_eq!(until(now, limit, &[]), now);
    }
}
