// SPDX-License-Identifier: MIT
//! Text without control characters.

use serde_json::Value;

/// What stands for a character that is none of a text.
const OTHER: char = '\u{fffd}';

/// Replaces control characters in every string of `value`, keys included: the worker does so before it
/// answers, and root takes no answer that has one.
pub fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean_text(text)),
        Value::Array(values) => values.into_iter().map(clean).collect(),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (clean_text(key), clean(value))).collect())
        }
        other => other,
    }
}

fn clean_text(text: String) -> String {
    match text.contains(char::is_control) {
        true => text.replace(char::is_control, OTHER.encode_utf8(&mut [0; 4])),
        false => text,
    }
}

/// Whether no string of `value` has a control character.
pub(crate) fn is_clean(value: &Value) -> bool {
    let is_text = |text: &str| !text.contains(char::is_control);
    match value {
        Value::String(text) => is_text(text),
        Value::Array(values) => values.iter().all(is_clean),
        Value::Object(fields) => fields.iter().all(|(key, value)| is_text(key) && is_clean(value)),
        _ => true,
    }
}

/// `text` for a message: without control characters, and not long.
pub(crate) fn short(text: &str) -> String {
    const LONGEST: usize = 300;
    clean_text(text.chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn control_characters_are_replaced_everywhere() {
        let value = json!({"a\nMAINPID=1": ["x\u{1b}[2J", {"b": "c\u{7f}"}], "n": 1});
        assert!(!is_clean(&value));
        assert_eq!(clean(value), json!({"a\u{fffd}MAINPID=1": ["x\u{fffd}[2J", {"b": "c\u{fffd}"}], "n": 1}));
    }

    proptest! {
        #[test]
        fn what_was_cleaned_is_clean(text in any::<String>()) {
            let value = json!([text.clone(), {text.clone(): text.clone()}]);
            prop_assert!(is_clean(&clean(value)));
            prop_assert!(!short(&text).contains(char::is_control));
        }
    }
}
