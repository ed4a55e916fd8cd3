// SPDX-License-Identifier: MIT
//! What is left out of files that are handed on: command lines, of which the program's name stays. They may have
//! passwords and tokens in them.

use serde_json::Value;

/// The longest name of a program, in characters.
const LONGEST: usize = 64;

/// The name of the program in a command line. A process writes what it likes there.
pub fn program(command: &str) -> String {
    let first = command.split([' ', '\\']).find(|word| !word.is_empty()).unwrap_or_default();
    let name = first.rsplit('/').next().unwrap_or_default();
    let end = name.find(['=', ':', '@', '?', '(', ')']).unwrap_or(name.len());
    name[..end].chars().take(LONGEST).collect()
}

/// `text` with names of programs in place of the command lines: of those in `known`, wherever they are, and of
/// whatever follows `process NUMBER`.
pub fn text(text: &str, known: &[String]) -> String {
    let mut text = text.to_owned();
    let mut known: Vec<&String> =
        known.iter().filter(|command| command.contains([' ', '=', ':', '@', '?'])).collect();
    known.sort_by_key(|command| std::cmp::Reverse(command.len()));
    for command in known {
        text = text.replace(command.as_str(), &program(command));
        // The ledger cuts a long one, and ends it with a sign.
        if let Some(begin) = command.strip_suffix('…') {
            text = text.replace(begin, &program(command));
        }
    }
    let mut clean = String::new();
    let mut rest = text.as_str();
    while let Some((before, command, after)) = next(rest) {
        clean.push_str(before);
        clean.push_str(&program(command));
        rest = after;
    }
    clean + rest
}

const PROCESS: &str = "process ";

/// The next command line of `process NUMBER (…)` or `process NUMBER of user NAME (…)`: what comes before it, itself,
/// and what comes after. Where its end is not known, too much is taken.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(found) = text[from..].find(PROCESS) {
        let at = from + found + PROCESS.len();
        from = at;
        let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
        let rest = &text[at + digits..];
        let Some(open) = rest.find('(').filter(|_| digits > 0) else { continue };
        let between = &rest[..open];
        if between != " "
            && !(between.starts_with(" of user ") && between.ends_with(' ') && between.len() < 64)
        {
            continue;
        }
        let begin = at + digits + open + 1;
        let inside = &text[begin..];
        // A name alone.
        let word = inside.find([' ', ')']).unwrap_or(inside.len());
        if inside[word..].starts_with(')') && program(&inside[..word]) == inside[..word] {
            continue;
        }
        let limit = inside.find(PROCESS).unwrap_or(inside.len());
        let end = inside[..limit].rfind(')').unwrap_or(limit);
        return Some((&text[..begin], &inside[..end], &inside[end..]));
    }
    None
}

/// The same for all strings of `value`. The fields `command` are command lines, and `arguments` are left out.
pub fn json(value: &mut Value, known: &[String]) {
    match value {
        Value::String(string) => *string = text(string, known),
        Value::Array(list) => list.iter_mut().for_each(|value| json(value, known)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), &mut *value) {
                    ("command", Value::String(command)) => *command = program(command),
                    ("arguments" | "definition", value) => *value = Value::Null,
                    (_, value) => json(value, known),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_command_line_the_program_stays() {
        for (command, name) in [
            ("/usr/bin/python3 train.py --token=s3cret", "python3"),
            ("python3", "python3"),
            ("API_KEY=s3cret", "API_KEY"),
            ("postgres://user:s3cret@host", "user"),
            ("redis:s3cret", "redis"),
            ("", ""),
            ("a\\x1b[2Jb s3cret", "a"),
        ] {
            assert_eq!(program(command), name, "{command}");
            assert!(!program(command).contains("s3cret"));
        }
    }

    #[test]
    fn no_sentence_has_more_of_a_process_than_its_name() {
        let known = ["python3 serve.py --key s3cret".to_owned(), "sleep 5 s3cr…".to_owned()];
        for (text, expected) in [
            (
                "terminated process 7 of user bob (hold --key s3cret /dev/nvidiactl)",
                "terminated process 7 of user bob (hold)",
            ),
            ("process 7 (a (b) s3cret) is there: why", "process 7 (a) is there: why"),
            ("process 7 (a s3cret); process 8 (b s3cret); more", "process 7 (a); process 8 (b); more"),
            ("process 7 (a s3cret", "process 7 (a"),
            ("process 7 (hold) and (s3 cret) elsewhere", "process 7 (hold) and (s3 cret) elsewhere"),
            ("said: python3 serve.py --key s3cret!", "said: python3!"),
            ("it is sleep 5 s3cr and more", "it is sleep and more"),
            ("process of user 5 (x y)", "process of user 5 (x y)"),
        ] {
            assert_eq!(super::text(text, &known), expected);
        }
    }

    #[test]
    fn all_of_a_document_is_looked_at() {
        let mut value = serde_json::json!({
            "object": {"command": "python3 --token s3cret", "arguments": ["--key", "s3cret"]},
            "list": [{"definition": {"Env": ["A=s3cret"]}, "reason": "process 7 (x s3cret)"}],
        });
        json(&mut value, &[]);
        assert!(!value.to_string().contains("s3cret"), "{value}");
        assert!(value.to_string().contains("python3"), "{value}");
    }
}
