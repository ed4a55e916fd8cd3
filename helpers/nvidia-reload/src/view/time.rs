// SPDX-License-Identifier: MIT
//! Times of a run, in the machine's own time zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2026-11-27 04:37`.
pub fn minute(usec: u64, zone: &TimeZone) -> String {
    format(usec, zone, "%Y-%m-%d %H:%M")
}

/// `2026-11-27 04:37:12 UTC`.
pub fn whole(usec: u64, zone: &TimeZone) -> String {
    format(usec, zone, "%Y-%m-%d %H:%M:%S %Z")
}

/// `04:37:12.345`.
pub fn of_day(usec: u64, zone: &TimeZone) -> String {
    format(usec, zone, "%H:%M:%S%.3f")
}

fn format(usec: u64, zone: &TimeZone, form: &str) -> String {
    let time = i64::try_from(usec).ok().and_then(|usec| Timestamp::from_microsecond(usec).ok());
    // Only a clock that was wrong by thousands of years.
    time.map_or_else(
        || "-".to_owned(),
        |time| time.to_zoned_datetime(zone.clone()).strftime(form).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_zone() {
        let usec = 1_764_000_000_123_456;
        assert_eq!(minute(usec, &TimeZone::UTC), "2025-11-24 16:00");
        assert_eq!(whole(usec, &TimeZone::UTC), "2025-11-24 16:00:00 UTC");
        assert_eq!(of_day(usec, &TimeZone::UTC), "16:00:00.123");
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        assert_eq!(minute(usec, &zone), "2025-11-24 11:00");
        assert_eq!(minute(u64::MAX, &zone), "-");
    }
}
