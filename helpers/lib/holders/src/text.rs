// SPDX-License-Identifier: MIT
//! Bytes that come from processes, made fit to be shown.

use std::fmt::Write;

use step::text::is_mark;

/// `bytes` as text that shows every byte and can do nothing to a terminal.
///
/// Printable UTF-8 stands for itself; a backslash, control characters, the invisible
/// direction and line marks of Unicode and bytes that are not UTF-8 are written `\\`, `\n`,
/// `\u{202e}`, `\xff`. No two inputs give the same text.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                c if c.is_ascii_control() => write_hex(&mut text, c as u8),
                c if c.is_control() || is_mark(c) => {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            write_hex(&mut text, *byte);
        }
    }
    text
}

fn write_hex(text: &mut String, byte: u8) {
    let _ = write!(text, "\\x{byte:02x}");
}

/// What [`escape`] wrote, back as the bytes it was made from; `None` if it did not write it.
#[cfg(test)]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest[at + 1..].chars().next()?;
        rest = &rest[at + 2..];
        match code {
            '\\' => bytes.push(b'\\'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            'x' => {
                bytes.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
                rest = &rest[2..];
            }
            'u' => {
                let end = rest.find('}')?;
                let c = char::from_u32(u32::from_str_radix(rest.get(1..end)?, 16).ok()?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[end + 1..];
            }
            _ => return None,
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_odd_bytes() {
        assert_eq!(escape(b"plain \xc3\xa9"), "plain \u{e9}");
        assert_eq!(escape(b"a\nb\\\x1b[31m\xff"), "a\\nb\\\\\\x1b[31m\\xff");
        assert_eq!(escape("\u{202e}".as_bytes()), "\\u{202e}");
    }

    proptest! {
        #[test]
        fn loses_no_byte(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = escape(&bytes);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(unescape(&text), Some(bytes));
        }
    }
}
