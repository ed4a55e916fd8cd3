// SPDX-License-Identifier: MIT
//! The moment of this machine: within a window, and later than that opens by its own share of the jitter.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use step::{Root, Upgrade, Window, machine_id, zone_file};

/// Windows come again after a week; a day more for those that pass midnight.
const DAYS: usize = 9;

/// The clock may be set, and the zone changed.
const LOOK: Duration = Duration::from_secs(300);

/// What there is to wait for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// In words.
    pub(crate) why: String,
    /// When to look again.
    pub(crate) again: Duration,
}

/// Whether it is not the moment of this machine, for a request that was made at `asked_usec` since 1970.
///
/// # Errors
/// The time zone or the machine id cannot be read.
pub(crate) fn closed(root: &Root, upgrade: &Upgrade, asked_usec: u64) -> Result<Option<Closed>> {
    if upgrade.window.is_empty() && upgrade.jitter == 0 {
        return Ok(None);
    }
    let share = if upgrade.jitter == 0 { 0 } else { share(&machine_id(root)?, upgrade.jitter) };
    let asked = Timestamp::from_microsecond(i64::try_from(asked_usec).unwrap_or(i64::MAX))
        .context("understand when the request was made")?;
    let zone = zone(root, &upgrade.window_zone)?;
    judge(&upgrade.windows()?, &zone, share, asked, Timestamp::now())
}

/// By how many seconds this machine is later than the first, `most` at most: the same each time.
pub(crate) fn share(machine: &str, most: u64) -> u64 {
    // The id is a hash: each of its parts is as good as the whole.
    let part = machine.get(..12).and_then(|part| u64::from_str_radix(part, 16).ok()).unwrap_or_default();
    part % (most + 1)
}

fn zone(root: &Root, name: &str) -> Result<TimeZone> {
    let path = zone_file(root, name);
    match fs::read(&path) {
        Ok(data) => TimeZone::tzif(name, &data).with_context(|| format!("understand {}", path.display())),
        // localtime(5): where it is missing, the system's zone is UTC.
        Err(error) if error.kind() == ErrorKind::NotFound && name.is_empty() => Ok(TimeZone::UTC),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn judge(
    windows: &[Window],
    zone: &TimeZone,
    share: u64,
    asked: Timestamp,
    now: Timestamp,
) -> Result<Option<Closed>> {
    let share = Duration::from_secs(share);
    let begins = match windows {
        [] => Some(asked + share),
        _ => {
            let from = now.min(asked);
            let is_ahead = |(start, end): &(Timestamp, Timestamp)| {
                let begin = (*start).max(asked) + share;
                (begin < *end && now < *end).then_some(begin)
            };
            let mut all = openings(windows, &now.to_zoned_datetime(zone.clone()))?;
            all.extend(openings(windows, &from.to_zoned_datetime(zone.clone()))?);
            all.iter().filter_map(is_ahead).min()
        }
    };
    let Some(begins) = begins else {
        let why = "no window of upgrade.window opens within a week".to_owned();
        return Ok(Some(Closed { why, again: LOOK }));
    };
    if begins <= now {
        return Ok(None);
    }
    let shown = begins.to_zoned_datetime(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %Z").to_string();
    let left = Duration::try_from(begins.duration_since(now)).unwrap_or_default();
    let why = match windows {
        [] => format!("the turn of this machine is {shown} (upgrade.jitter)"),
        _ => format!("this machine begins at {shown} (upgrade.window)"),
    };
    Ok(Some(Closed { why, again: left.min(LOOK) }))
}

/// When the windows open and end, from the day before `now`. What the clock on the wall skips, when summer time
/// begins, is no time; what it shows twice counts from the first time on.
fn openings(windows: &[Window], now: &ZonedDateTime) -> Result<Vec<(Timestamp, Timestamp)>> {
    let zone = now.time_zone();
    let mut found = Vec::new();
    let mut day = now.date().yesterday().context("go back a day")?;
    for _ in 0..DAYS {
        let of_day = usize::try_from(day.weekday().to_monday_zero_offset()).unwrap_or_default();
        for window in windows.iter().filter(|window| window.days[of_day]) {
            let (start, end) = (instant(day, window.from, zone)?, instant(day, window.to, zone)?);
            if start < end {
                found.push((start, end));
            }
        }
        day = day.tomorrow().context("go on a day")?;
    }
    Ok(found)
}

/// When the clock on the wall shows that many minutes of the day, or of the next one.
fn instant(day: Date, minutes: u16, zone: &TimeZone) -> Result<Timestamp> {
    let day = if minutes >= 24 * 60 { day.tomorrow().context("go on a day")? } else { day };
    let minutes = minutes % (24 * 60);
    let (hour, minute) = (minutes / 60, minutes % 60);
    let shown = day.at(i8::try_from(hour)?, i8::try_from(minute)?, 0, 0);
    Ok(shown.to_zoned_datetime(zone.clone()).context("find the time in its zone")?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("is a zone")
    }

    fn windows(texts: &[&str]) -> Vec<Window> {
        texts.iter().map(|text| Window::parse(text).expect("is one")).collect()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// How long it waits at `now` and for what; the request is older than the week.
    fn waits(texts: &[&str], share: u64, now: &str) -> String {
        let asked = at("2026-01-01T00:00:00Z");
        match judge(&windows(texts), &berlin(), share, asked, at(now)).expect("judges") {
            None => "open".to_owned(),
            Some(closed) => closed.why,
        }
    }

    #[test]
    fn a_reload_begins_within_its_window() {
        let weekend = ["Sat,Sun 02:00-06:00"];
        // A Friday; the window opens at 01:00 UTC.
        assert_eq!(
            waits(&weekend, 0, "2026-11-27T12:00:00Z"),
            "this machine begins at Sat 2026-11-28 02:00:00 CET (upgrade.window)"
        );
        assert_eq!(waits(&weekend, 0, "2026-11-28T00:59:59Z"), waits(&weekend, 0, "2026-11-27T12:00:00Z"));
        assert_eq!(waits(&weekend, 0, "2026-11-28T01:00:00Z"), "open");
        assert_eq!(waits(&weekend, 0, "2026-11-28T04:59:59Z"), "open");
        assert!(waits(&weekend, 0, "2026-11-28T05:00:00Z").contains("Sun 2026-11-29 02:00:00"));
        assert!(waits(&weekend, 0, "2026-11-29T05:00:00Z").contains("Sat 2026-12-05 02:00:00"));
        // It belongs to the day that it begins on.
        let nights = ["Mon..Fri 22:00-05:00"];
        assert_eq!(waits(&nights, 0, "2026-11-28T03:59:00Z"), "open", "Saturday, 04:59");
        assert!(
            waits(&nights, 0, "2026-11-28T22:00:00Z").contains("Mon 2026-11-30 22:00:00"),
            "Saturday, 23:00"
        );
        assert_eq!(waits(&["00:00-24:00"], 0, "2026-11-28T22:59:59Z"), "open");
    }

    #[test]
    fn summer_time_begins_and_ends() {
        // On 29 March the clock goes from 02:00 to 03:00; at 01:00 UTC.
        let two = ["Sun 02:00-03:00"];
        assert!(
            waits(&two, 0, "2026-03-29T00:59:59Z").contains("Sun 2026-04-05 02:00:00 CEST"),
            "no such hour"
        );
        assert!(waits(&two, 0, "2026-03-29T01:30:00Z").contains("Sun 2026-04-05 02:00:00 CEST"));
        let half = ["Sun 02:30-04:00"];
        assert!(waits(&half, 0, "2026-03-29T00:59:59Z").contains("Sun 2026-03-29 03:30:00 CEST"));
        assert_eq!(waits(&half, 0, "2026-03-29T01:45:00Z"), "open", "03:45");
        // On 25 October it goes from 03:00 to 02:00, at 01:00 UTC: the hour is there twice.
        assert_eq!(waits(&two, 0, "2026-10-25T00:00:00Z"), "open", "02:00 the first time");
        assert_eq!(waits(&two, 0, "2026-10-25T01:59:59Z"), "open", "02:59 the second time");
        assert!(waits(&two, 0, "2026-10-25T02:00:00Z").contains("Sun 2026-11-01 02:00:00 CET"));
        // The night of 25 hours and that of 23.
        for (start, end) in [
            ("2026-10-24T20:00:00Z", "2026-10-25T04:00:00Z"),
            ("2026-03-28T21:00:00Z", "2026-03-29T03:00:00Z"),
        ] {
            let night = ["Sat 22:00-05:00"];
            let (start, end) = (at(start), at(end));
            for (time, open) in [(start - SECOND, false), (start, true), (end - SECOND, true), (end, false)] {
                assert_eq!(waits(&night, 0, &time.to_string()) == "open", open, "{time}");
            }
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_machine_has_its_own_moment() {
        let weekend = ["Sat,Sun 02:00-06:00"];
        assert!(waits(&weekend, 600, "2026-11-28T01:00:00Z").contains("Sat 2026-11-28 02:10:00 CET"));
        assert_eq!(waits(&weekend, 600, "2026-11-28T01:10:00Z"), "open");
        // Asked for within the window: all machines would begin at once.
        let judged = |asked: &str, now: &str| {
            let closed = judge(&windows(&weekend), &berlin(), 600, at(asked), at(now)).expect("judges");
            closed.map_or("open".to_owned(), |closed| closed.why)
        };
        assert!(judged("2026-11-28T02:00:00Z", "2026-11-28T02:00:01Z").contains("03:10:00"));
        assert_eq!(judged("2026-11-28T02:00:00Z", "2026-11-28T02:10:00Z"), "open");
        // Too late for this one.
        assert!(judged("2026-11-28T04:55:00Z", "2026-11-28T04:56:00Z").contains("Sun 2026-11-29 02:10:00"));
        // Without a window: after the request.
        let free =
            |now: &str| judge(&[], &berlin(), 90, at("2026-11-27T12:00:00Z"), at(now)).expect("judges");
        let closed = free("2026-11-27T12:00:30Z").expect("waits");
        assert_eq!(closed.again, Duration::from_secs(60));
        assert_eq!(closed.why, "the turn of this machine is Fri 2026-11-27 13:01:30 CET (upgrade.jitter)");
        assert_eq!(free("2026-11-27T12:01:30Z"), None);
        // The clock was set back behind the request.
        assert!(free("2026-11-20T12:00:00Z").is_some_and(|closed| closed.again == LOOK));
    }

    #[test]
    fn machines_are_spread_evenly() {
        let machines = 4096_u64;
        let mut quarters = [0; 4];
        for machine in 0..machines {
            // Ids are hashes.
            let id = format!("{:016x}{:016x}", machine.wrapping_mul(0x9e37_79b9_7f4a_7c15), machine);
            let share = share(&id, 3600);
            assert!(share <= 3600);
            quarters[usize::try_from(share * 4 / 3601).expect("is small")] += 1;
        }
        assert!(quarters.iter().all(|count| (900..1150).contains(count)), "{quarters:?}");
        assert_eq!(share("ffffffffffffffffffffffffffffffff", 0), 0);
    }

    #[test]
    fn the_zone_is_the_systems_or_one_of_the_database() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert_eq!(zone(&root, "").expect("is UTC"), TimeZone::UTC);
        let error = format!("{:#}", zone(&root, "Europe/Berlin").expect_err("is not there"));
        assert!(error.contains("/usr/share/zoneinfo/Europe/Berlin"), "{error}");
        fs::create_dir(root.path("/etc")).expect("creates");
        fs::write(root.path("/etc/localtime"), "TZif").expect("writes");
        assert!(format!("{:#}", zone(&root, "").expect_err("is cut off")).contains("/etc/localtime"));
    }
}
