//! How long a unit may take to stop: its manager's own time, and a little more.

use std::time::{Duration, Instant};

/// From the end of the manager's time until the unit is seen to have stopped.
const MARGIN: Duration = Duration::from_secs(10);

/// systemd's own default of `TimeoutStopSec=`.
pub(crate) const DEFAULT: Option<Duration> = Some(Duration::from_secs(90));

/// A user's own word on its units counts up to this: what systemd's default, 90 s, comes to.
const OF_USER: Duration = Duration::from_secs(2 * 90 + 10);

/// How long a unit with this `TimeoutStopSec=` (none for infinity) takes at most: its stop command gets that
/// time, and then SIGTERM gets it, before it is killed.
pub(crate) fn longest(own: Option<Duration>, user: Option<u32>) -> Duration {
    let longest = own.map_or(Duration::MAX, |own| own.saturating_mul(2).saturating_add(MARGIN));
    if user.is_some() { longest.min(OF_USER) } else { longest }
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
        assert!(until(now, limit, &[longest(DEFAULT, None)]) > now + Duration::from_secs(95));
        let slow = longest(Some(Duration::from_secs(200)), None);
        assert_eq!(until(now, limit, &[longest(DEFAULT, None), slow]), now + Duration::from_secs(410));
        assert_eq!(until(now, limit, &[longest(None, None)]), limit, "infinity");
        assert_eq!(until(now, limit, &[]), now);
    }

    #[test]
    fn a_users_word_does_not_hold_up_the_run() {
        assert_eq!(longest(None, Some(1000)), longest(DEFAULT, Some(1000)));
    }

    #[test]
    fn all_stops_fit_into_the_time_of_the_step() {
        let unit = include_str!("../../../units/nvidia-reload-stop-units.service");
        assert!(unit.lines().any(|line| line == "TimeoutStartSec=15min"));
        let config = |seconds| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = step::Root::at(directory.path());
            let path = root.path("/etc/nvidia-reload/config.toml");
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
            std::fs::write(&path, format!("[units]\nstop-timeout = {seconds}\n")).expect("writes");
            step::Config::load(&root)
        };
        // What is left is for three searches of holders.
        assert!(config(600).is_ok() && config(601).is_err());
        assert!(step::Config::default().units.stop_timeout <= 600);
    }
}
