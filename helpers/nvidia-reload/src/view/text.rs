// SPDX-License-Identifier: MIT
//! Words and figures, measured and cut.

use std::time::{SystemTime, UNIX_EPOCH};

pub use step::text::clean;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How many columns `text` takes; paint takes none.
pub fn width(text: &str) -> usize {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().width();
    first + parts.map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.width())).sum::<usize>()
}

/// `text`, cut to `columns` with a sign that it was.
pub fn cut(text: &str, columns: usize, unicode: bool) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let sign = if unicode { "…" } else { "~" };
    let mut cut = String::new();
    let mut used = width(sign);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        cut.push(c);
    }
    // No room even for the sign.
    if columns > 0 {
        cut.push_str(sign);
    }
    cut
}

/// `text` with spaces up to `columns`.
pub fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// `text` in lines of at most `columns`, the first behind `first`, the rest below its end.
pub fn wrap(first: &str, text: &str, columns: Option<usize>) -> String {
    let indent = width(first);
    let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(indent).max(20));
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let line = lines.last_mut().filter(|line| line.is_empty() || width(line) + 1 + width(word) <= room);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    format!("{first}{}\n", lines.join(&format!("\n{}", " ".repeat(indent))))
}

/// A time that somebody waits: `0.2 s`, `41 s`, `2 min 05 s`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        _ => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// How long ago a moment was, given in microseconds since 1970.
pub fn ago(usec: u64, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let age = now.saturating_sub(usec / 1_000_000);
    match age {
        0..60 => format!("{age} s ago"),
        60..3600 => format!("{} min ago", age / 60),
        3600..172_800 => format!("{} h ago", age / 3600),
        _ => format!("{} days ago", age / 86_400),
    }
}

/// Memory: `512 MiB`, `11.8 GiB`.
pub fn bytes(bytes: u64) -> String {
    const MIB: f64 = 1048576.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

/// `1 process`, `2 processes`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_cut_fits() {
        assert_eq!(cut("python3", 7, true), "python3");
        assert_eq!(cut("python3", 6, true), "pytho…");
        assert_eq!(cut("python3", 6, false), "pytho~");
        // Two columns a character.
        assert_eq!(cut("日本語", 5, true), "日本…");
        assert_eq!(cut("日本語", 4, true), "日…");
        assert_eq!(cut("abc", 0, true), "");
    }

    #[test]
    fn long_texts_are_wrapped_below_their_start() {
        assert_eq!(
            wrap("  - ", "one two three four five six", Some(24)),
            "  - one two three four\n    five six\n"
        );
        assert_eq!(wrap("- ", "one two", None), "- one two\n");
        let painted = "\x1b[31;1mone\x1b[0m two three four five";
        assert_eq!(width(painted), 23);
        assert_eq!(wrap("", painted, Some(23)), format!("{painted}\n"), "paint is no reason to break a line");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([0.04, 9.94, 41.2, 125.0].map(seconds), ["0.0 s", "9.9 s", "41 s", "2 min 05 s"]);
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(12_670_000_000), "11.8 GiB");
        let now = UNIX_EPOCH + Duration::from_secs(200_000);
        assert_eq!(ago(199_990_000_000, now), "10 s ago");
        assert_eq!(ago(0, now), "2 days ago");
    }
}
