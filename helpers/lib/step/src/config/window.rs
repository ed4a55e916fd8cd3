// SPDX-License-Identifier: MIT
//! The times of the week in which a reload may begin by itself.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::{Root, Upgrade};

/// The days as systemd.time(7) writes them, in its order.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// What is wrong with a window, and how one is written.
const FORM: &str = "write days as systemd.time(7) does and then the hours, such as \"Sat,Sun 02:00-06:00\", \
                    \"Mon..Fri 22:00-05:00\" or \"03:00-04:30\" for every day";

/// A window, by the clock on the wall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Whether it begins on each day of the week, from Monday.
    pub days: [bool; 7],
    /// When it begins, in minutes of that day.
    pub from: u16,
    /// When it ends, in minutes of that day; beyond its end where the window passes midnight.
    pub to: u16,
}

impl Window {
    /// Reads `[DAYS ]HH:MM-HH:MM`. One that ends before it begins passes midnight.
    ///
    /// # Errors
    /// It is not written so.
    pub fn parse(text: &str) -> Result<Self> {
        let (days, hours) = match text.trim().rsplit_once(' ') {
            Some((days, hours)) => (self::days(days)?, hours),
            None => ([true; 7], text.trim()),
        };
        let Some((from, to)) = hours.split_once('-') else { bail!("{text:?} has no hours: {FORM}") };
        let (Some(from), Some(to)) = (minutes(from), minutes(to)) else {
            bail!("{hours:?} are no hours: {FORM}");
        };
        if from == to || from == 24 * 60 {
            bail!("{hours:?} is empty; \"00:00-24:00\" is the whole day");
        }
        let to = if to < from { to + 24 * 60 } else { to };
        Ok(Self { days, from, to })
    }
}

fn days(text: &str) -> Result<[bool; 7]> {
    let day = |name: &str| {
        // systemd takes the whole name, too.
        const REST: [&str; 7] = ["day", "sday", "nesday", "rsday", "day", "urday", "day"];
        let is = |at: usize| name == DAYS[at] || name.strip_prefix(DAYS[at]) == Some(REST[at]);
        let found = (0..7).find(|at| is(*at));
        found.with_context(|| format!("{name:?} is no day: {FORM}"))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.trim().split_once("..") {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part.trim())?, day(part.trim())?),
        };
        // Fri..Mon goes over the end of the week.
        let mut at = first;
        days[at] = true;
        while at != last {
            at = (at + 1) % 7;
            days[at] = true;
        }
    }
    Ok(days)
}

/// `HH:MM` in minutes.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let number = |text: &str| {
        let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let sum = hour * 60 + minute;
    (minute < 60 && sum <= 24 * 60).then_some(sum)
}

/// Where the data of a time zone is; none for the system's own.
pub fn zone_file(root: &Root, zone: &str) -> std::path::PathBuf {
    match zone {
        "" => root.path("/etc/localtime"),
        zone => root.path("/usr/share/zoneinfo").join(zone),
    }
}

impl Upgrade {
    /// The windows.
    ///
    /// # Errors
    /// One is not written as they are.
    pub fn windows(&self) -> Result<Vec<Window>> {
        self.window.iter().map(|text| Window::parse(text)).collect()
    }

    pub(super) fn validate(&self, root: &Root) -> Result<()> {
        let windows = self.windows().context("upgrade.window")?;
        if self.jitter > 24 * 60 * 60 {
            bail!("upgrade.jitter = {}: must be 86400 seconds at most", self.jitter);
        }
        for (window, text) in windows.iter().zip(&self.window) {
            if u64::from(window.to - window.from) * 60 <= self.jitter {
                bail!(
                    "upgrade.jitter = {}: the window {text:?} is over before every machine may begin; \
                     make the window longer or the jitter shorter",
                    self.jitter
                );
            }
        }
        let zone = &self.window_zone;
        if zone.is_empty() {
            return Ok(());
        }
        let is_name = zone.split('/').all(|part| {
            let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-');
            !part.is_empty() && part.bytes().all(in_name)
        });
        let unknown = || {
            format!(
                "upgrade.window-zone = {zone:?}: no such time zone; `timedatectl list-timezones` shows them"
            )
        };
        if !is_name {
            bail!("{}", unknown());
        }
        let file = zone_file(root, zone);
        let data =
            fs::read(&file).with_context(|| format!("read {}", file.display())).with_context(unknown)?;
        if !data.starts_with(b"TZif") {
            bail!("{} ({} is no time zone)", unknown(), file.display());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_written_as_systemd_writes_times() {
        let of = |text: &str| {
            let window = Window::parse(text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
            let days: String = window.days.iter().map(|day| if *day { 'x' } else { '.' }).collect();
            (days, window.from, window.to)
        };
        assert_eq!(of("Sat,Sun 02:00-06:00"), (".....xx".into(), 120, 360));
        assert_eq!(of("Mon..Fri 22:00-05:00"), ("xxxxx..".into(), 1320, 1740));
        assert_eq!(of("Fri..Mon,Wednesday 0:00-24:00"), ("x.x.xxx".into(), 0, 1440));
        assert_eq!(of(" 03:00-04:30 "), ("xxxxxxx".into(), 180, 270));
        for (bad, word) in [
            ("", "no hours"),
            ("Sat", "no hours"),
            ("Sat 2-6", "no hours"),
            ("Sat 02:00-25:00", "no hours"),
            ("Sat 02:60-03:00", "no hours"),
            ("Sat 02:00", "no hours"),
            ("Sat 02:00-02:00", "empty"),
            ("24:00-03:00", "empty"),
            ("Sa 02:00-03:00", "is no day"),
            ("Sat,, 02:00-03:00", "is no day"),
            ("Sat..Foo 02:00-03:00", "is no day"),
            ("Sat -2:00-03:00", "no hours"),
            ("every night", "is no day"),
        ] {
            let error = Window::parse(bad).map(|_| ()).expect_err(bad);
            assert!(format!("{error:#}").contains(word), "{bad}: {error:#}");
        }
    }
}
