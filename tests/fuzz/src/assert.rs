// SPDX-License-Identifier: MIT
//! What must hold of whatever a reader makes of its input.

use serde::Serialize;
use serde_json::Value;

/// Whether a text does nothing to a terminal, a log or a protocol: no control character, no mark that turns
/// the direction of writing (Unicode's Bidi_Control), no separator of lines.
pub fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
    })
}

/// Asserts that each text in `value` is plain.
///
/// # Panics
/// One is not.
#[track_caller]
pub fn assert_plain(value: &impl Serialize) {
    let value = encoded(value);
    each_text(&value, &mut |text| assert!(is_plain(text), "{text:?} is not plain in {value}"));
}

/// Asserts that `value` is no longer than `bytes`, as JSON.
///
/// # Panics
/// It is longer.
#[track_caller]
pub fn assert_at_most(bytes: usize, value: &impl Serialize) {
    let length = encoded(value).to_string().len();
    assert!(length <= bytes, "{length} bytes, and {bytes} at most");
}

#[track_caller]
fn encoded(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| panic!("cannot be encoded: {error}"))
}

fn each_text(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(values) => values.iter().for_each(|value| each_text(value, each)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            each(key);
            each_text(value, each);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn what_is_not_plain_or_too_long_fails() {
        assert_plain(&serde_json::json!({"a": ["b", {"c": 1}]}));
        for bad in ["\n", "\u{1b}", "\u{85}", "\u{202e}", "\u{61c}"] {
            catch_unwind(|| assert_plain(&serde_json::json!({"a": [{"b": bad}]}))).expect_err("a value");
            catch_unwind(|| assert_plain(&serde_json::json!({bad: 1}))).expect_err("a key");
        }
        assert_at_most(5, &"abc");
        catch_unwind(|| assert_at_most(4, &"abc")).expect_err("is longer");
    }
}
