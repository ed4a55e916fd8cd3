// SPDX-License-Identifier: MIT
//! Text on its way out: names come from users, and must do nothing to a terminal, a log or a protocol.

use serde::Serialize;

/// The longest status line, in bytes: systemd drops a datagram of more than 4096 (PIPE_BUF).
const STATUS: usize = 1024;

/// The longest line for people, in bytes.
const LINE: usize = 16 << 10;

/// `text` with everything escaped that would do something to a terminal: control characters, line
/// ends, and marks that turn the direction of writing. What was escaped before stays as it is.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => clean.push_str("\\n"),
            '\t' => clean.push_str("\\t"),
            '\r' => clean.push_str("\\r"),
            c if c.is_ascii_control() => clean.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || is_mark(c) => clean.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => clean.push(c),
        }
    }
    clean
}

/// Characters that change how the text around them is laid out.
pub fn is_mark(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A line for the journal or a terminal.
pub(crate) fn line(text: &str) -> String {
    cut(clean(text), LINE)
}

/// A text of which `bytes` are worth to be kept.
pub fn short(text: &str, bytes: usize) -> String {
    cut(clean(text), bytes)
}

/// A unit's status line: one field of one message to systemd, whatever is in it.
pub(crate) fn status(text: &str) -> String {
    cut(clean(text), STATUS)
}

fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// `value` as JSON in several lines, in which what would do something to a terminal is escaped as JSON does
/// it: serde leaves all but the first 32 characters as they are.
///
/// # Errors
/// It cannot be encoded.
pub fn json<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let plain = serde_json::to_string_pretty(value)?;
    let mut text = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '\n' => text.push(c),
            // All of these are in strings, and of 16 bits.
            c if c.is_control() || is_mark(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "a\x1b[31m\nb\u{202e}\u{9b}31m\u{7f}\t\u{85}é\\x1b";

    #[test]
    fn nothing_reaches_a_terminal_unescaped() {
        assert_eq!(clean(ODD), "a\\x1b[31m\\nb\\u{202e}\\u{9b}31m\\x7f\\t\\u{85}é\\x1b");
        let lossy = String::from_utf8_lossy(b"a\xff\nb").into_owned();
        assert_eq!(clean(&lossy), "a\u{fffd}\\nb");
    }

    #[test]
    fn a_very_long_name_is_cut_between_characters() {
        for (text, most) in [(status(&"é".repeat(100_000)), STATUS), (line(&"日".repeat(100_000)), LINE)] {
            assert!(text.len() <= most + '…'.len_utf8() && text.ends_with('…'), "{}", text.len());
        }
        assert_eq!(status("short"), "short");
    }

    #[test]
    fn json_is_the_same_value_and_does_nothing_to_a_terminal() {
        let value = serde_json::json!({"name": ODD, ODD: [1]});
        let text = json(&value).expect("encodes");
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || is_mark(c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("decodes"), value);
    }
}
