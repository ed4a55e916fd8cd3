// SPDX-License-Identifier: MIT
//! The times that logs put before a message.

use crate::scan::Scan;

/// A weekday, a day, a month, a year.
const MOST_DATE_WORDS: usize = 4;

/// What is in brackets before a message: a time, or printk's caller.
pub(crate) fn is_stamp(inside: &str, iso: bool) -> bool {
    let is_seconds = |text: &str| {
        text.trim().split_once('.').is_some_and(|(whole, part)| is_digits(whole) && is_digits(part))
    };
    let inside = inside.trim();
    // A thread or a processor (CONFIG_PRINTK_CALLER).
    if let Some(caller) = inside.strip_prefix(['T', 'C'])
        && is_digits(caller)
    {
        return true;
    }
    // The time since the message before.
    if let Some((since_boot, delta)) = inside.split_once('<') {
        return is_seconds(since_boot) && delta.strip_suffix('>').is_some_and(is_seconds);
    }
    if is_seconds(inside.strip_prefix('+').unwrap_or(inside)) {
        return true;
    }
    // `Feb23 16:24`, of `dmesg --reltime`.
    if let Some((day, time)) = inside.split_once(' ')
        && let Some(at) = day.find(|c: char| c.is_ascii_digit())
        && is_name(&day[..at])
        && is_digits(&day[at..])
        && time.len() == 5
        && is_clock(&format!("{time}:00"))
    {
        return true;
    }
    let mut scan = Scan(inside);
    match date(&mut scan) {
        Date::Words | Date::Dmesg => scan.0.is_empty(),
        // Programs put theirs into brackets like that: only where more says whose it is.
        Date::Other => iso && scan.0.is_empty() && inside.contains('T'),
        Date::None => false,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Date {
    None,
    /// `Sep 18 20:07:01`, in any language.
    Words,
    /// `2025-01-21T04:41:44,283390+00:00`: nothing else writes a comma there and the zone so.
    Dmesg,
    /// Any other.
    Other,
}

/// Steps over a date with its time, and over a year behind it.
pub(crate) fn date(scan: &mut Scan<'_>) -> Date {
    let (mut rest, mut names, mut numbers, mut iso) = (scan.0, 0, 0, false);
    for _ in 0..=MOST_DATE_WORDS {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, behind) = (&rest[..end], rest[end..].trim_start());
        let date = if is_unix_time(word) || is_iso_time(word) {
            match is_dmesgs_time(word) {
                true => Date::Dmesg,
                false => Date::Other,
            }
        } else if is_clock(word) {
            match (iso, names, numbers) {
                (true, ..) => Date::Other,
                (false, 1.., 1..) => Date::Words,
                // A month's name may begin with its number.
                _ => return Date::None,
            }
        } else {
            let bare = word.trim_end_matches(['.', ',']);
            if is_digits(bare) && bare.len() <= 4 {
                numbers += 1;
            } else if is_iso_date(bare) {
                iso = true;
            } else if is_name(bare.trim_start_matches(|c: char| c.is_ascii_digit())) {
                names += 1;
            } else {
                return Date::None;
            }
            rest = behind;
            continue;
        };
        let is_year = |word: &&str| word.len() == 4 && is_digits(word);
        let is_zone =
            |word: &str| (2..=5).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase());
        // `08:02:25 UTC 2026`, as date(1) writes it.
        let mut words = behind.split_whitespace();
        let behind = match (words.next(), words.next()) {
            (Some(zone), Some(year)) if is_zone(zone) && is_year(&year) => behind[zone.len()..].trim_start(),
            _ => behind,
        };
        let year = behind.split_whitespace().next().filter(is_year);
        scan.0 = match (date, year) {
            (Date::Words, Some(year)) => behind[year.len()..].trim_start(),
            _ => behind,
        };
        return date;
    }
    Date::None
}

pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A weekday's or a month's name. What is in capitals is the level of a program's log.
fn is_name(text: &str) -> bool {
    (1..=10).contains(&text.chars().count())
        && text.chars().all(char::is_alphabetic)
        && !(text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_uppercase()))
}

/// `16:24:18`, with parts of a second and a zone or without.
fn is_clock(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_pair = |at: usize| bytes.get(at..at + 2).is_some_and(|pair| pair.iter().all(u8::is_ascii_digit));
    if !(is_pair(0) && is_pair(3) && is_pair(6) && bytes[2] == b':' && bytes[5] == b':') {
        return false;
    }
    let rest = &text[8..];
    let rest = match rest.strip_prefix(['.', ',']) {
        Some(parts) => {
            let zone = parts.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == parts.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    match rest.strip_prefix(['+', '-']) {
        Some(zone) => is_digits(&zone.replacen(':', "", 1)) && zone.len() <= 5,
        None => matches!(rest, "" | "Z"),
    }
}

/// `2025-01-21`, `2025/01/21`.
fn is_iso_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split(['-', '/']).collect();
    matches!(parts.as_slice(), [year, month, day] if year.len() == 4 && month.len() == 2 && day.len() == 2)
        && parts.iter().all(|part| is_digits(part))
}

fn is_iso_time(text: &str) -> bool {
    text.split_once('T').is_some_and(|(date, time)| is_iso_date(date) && is_clock(time))
}

fn is_dmesgs_time(text: &str) -> bool {
    text.split_once(',').is_some_and(|(_, parts)| {
        parts.len() == "283390+00:00".len() && parts.as_bytes()[6] != b'Z' && parts.contains(':')
    })
}

/// `1740327858.123456`, of `journalctl --output=short-unix`.
fn is_unix_time(text: &str) -> bool {
    text.split_once('.').is_some_and(|(whole, part)| whole.len() >= 9 && is_digits(whole) && is_digits(part))
}
