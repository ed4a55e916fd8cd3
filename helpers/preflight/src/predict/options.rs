// SPDX-License-Identifier: MIT
//! Whether the modules take the options that modprobe.d and the kernel command line give them, and what
//! those change. The rules are the kernel's (kernel/params.c, lib/kstrtox.c).

use std::collections::BTreeMap;

use anyhow::Result;
use modules::{Loaded, parameters};
use step::Root;

use super::Found;
use crate::findings::Findings;

/// Judges the options of `found`, each against the file's parameters, and against what is set now.
///
/// # Errors
/// The parameters of what is loaded cannot be read.
pub(crate) fn assess(root: &Root, loaded: &[Loaded], found: &[Found], findings: &mut Findings) -> Result<()> {
    for one in found {
        let name = &one.file.name;
        let now = parameters(root, name)?;
        let is_same = loaded.iter().any(|loaded| one.file.is(&loaded.module));
        for option in options(&one.file.options) {
            let shown = option.to_string();
            match one.declared.parameters.get(&option.name) {
                Some(Some(kind)) => {
                    if let Some(why) = refused(kind, option.value.as_deref()) {
                        findings.refuse(
                            format!(
                                "{} does not load with the option {shown:?}: {why}",
                                one.file.path.display()
                            ),
                            format!("fix it: `grep -r {} /etc/modprobe.d /proc/cmdline`", option.name),
                        );
                    } else if let Some((was, will)) = changed(kind, &option, &now) {
                        findings.warn(
                            format!("the parameter {} of {name} is {was}, and will be {will}", option.name),
                            "the options were changed since it was loaded; see that this is what is wanted",
                        );
                    }
                }
                Some(None) => {}
                // The kernel itself knows these for any module.
                None if matches!(option.name.as_str(), "dyndbg" | "async_probe") => {}
                // The same file as before takes them as before.
                None if is_same => {}
                None => findings.warn(
                    format!(
                        "{} has no parameter {}, and the option {shown:?} will do nothing",
                        one.file.path.display(),
                        option.name
                    ),
                    "remove it, or see what takes its place in the new driver",
                ),
            }
        }
    }
    Ok(())
}

/// One option: a name, and a value unless it is only named.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    name: String,
    value: Option<String>,
}

impl std::fmt::Display for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The options in a line as the kernel gets it: apart by white space, which quotes keep together. The last of
/// a name counts, but each has to be taken.
fn options(line: &str) -> Vec<Given> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for character in line.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            character if character.is_ascii_whitespace() && !is_quoted => words.push(String::new()),
            character => words.last_mut().expect("is never empty").push(character),
        }
    }
    let given = |word: String| match word.split_once('=') {
        Some((name, value)) => Given { name: underscored(name), value: Some(value.to_owned()) },
        None => Given { name: underscored(&word), value: None },
    };
    words.into_iter().filter(|word| !word.is_empty()).map(given).collect()
}

fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

/// Why a parameter of the type `kind` refuses `value`: none if it takes it, or if that is not certain.
fn refused(kind: &str, value: Option<&str>) -> Option<String> {
    let elements = kind.strip_prefix("array of ");
    let kind = elements.unwrap_or(kind);
    let Some(value) = value else {
        return match kind {
            "bool" | "invbool" | "bint" => None,
            _ if is_number(kind) || kind == "charp" => Some("it needs a value".to_owned()),
            _ => None,
        };
    };
    let mut values: Box<dyn Iterator<Item = &str>> =
        if elements.is_some() { Box::new(value.split(',')) } else { Box::new(std::iter::once(value)) };
    values.find_map(|value| match kind {
        "bool" | "invbool" | "bint" => {
            (!is_switch(value)).then(|| format!("{value:?} is neither on (1, Y) nor off (0, N)"))
        }
        "charp" => (value.len() > 1024).then(|| "it is longer than 1024 bytes".to_owned()),
        _ if is_number(kind) => number(kind, value).err().map(|why| format!("{value:?} {why}")),
        _ => None,
    })
}

/// What the parameter is now and will be, where both can be known and differ.
fn changed(kind: &str, option: &Given, now: &BTreeMap<String, String>) -> Option<(String, String)> {
    let now = now.get(&option.name)?.trim();
    let will = match (kind, option.value.as_deref()) {
        ("bool", None) => "Y".to_owned(),
        ("bool", Some(value)) => (if is_on(value) { "Y" } else { "N" }).to_owned(),
        (_, Some(value)) if is_number(kind) => {
            let (now, will) = (number(kind, now).ok()?, number(kind, value).ok()?);
            return (now != will).then(|| (now.to_string(), will.to_string()));
        }
        ("charp", Some(value)) => value.trim().to_owned(),
        _ => return None,
    };
    (now != will).then(|| (now.to_owned(), will))
}

/// Whether kstrtobool() knows the value; newer kernels know more words than older ones, and those count as
/// known.
fn is_switch(value: &str) -> bool {
    let mut letters = value.bytes().map(|letter| letter.to_ascii_lowercase());
    match letters.next() {
        Some(b'y' | b'n' | b't' | b'f' | b'1' | b'0' | b'e' | b'd') => true,
        Some(b'o') => matches!(letters.next(), Some(b'n' | b'f')),
        _ => false,
    }
}

fn is_on(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["y", "t", "1", "e", "on"].iter().any(|on| value.starts_with(on))
}

fn is_number(kind: &str) -> bool {
    range(kind).is_some()
}

/// The smallest and the largest number that a type takes.
fn range(kind: &str) -> Option<(i128, i128)> {
    Some(match kind {
        "byte" => (0, u8::MAX.into()),
        "short" => (i16::MIN.into(), i16::MAX.into()),
        "ushort" => (0, u16::MAX.into()),
        "int" => (i32::MIN.into(), i32::MAX.into()),
        "uint" | "hexint" => (0, u32::MAX.into()),
        // As wide as the machine's word; wide enough for what is certain.
        "long" => (i64::MIN.into(), i64::MAX.into()),
        "ulong" | "ullong" => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// A number as the kernel reads it: decimal, with 0x hexadecimal, with a leading 0 octal.
fn number(kind: &str, text: &str) -> Result<i128, &'static str> {
    const NONE: &str = "is no number";
    let (smallest, largest) = range(kind).ok_or(NONE)?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) if smallest < 0 => (-1, digits),
        _ => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.strip_prefix("0x") {
        Some(digits) => (16, digits),
        None if lower.starts_with('0') && lower.len() > 1 => (8, &lower[1..]),
        None => (10, lower.as_str()),
    };
    // Of the standard library's own: signs and the like are not for the kernel.
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Err(NONE);
    }
    match i128::from_str_radix(digits, base).map(|number| sign * number) {
        Ok(number) if (smallest..=largest).contains(&number) => Ok(number),
        _ => Err("is out of range"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_taken_apart_as_the_kernel_does() {
        let given =
            |name: &str, value: Option<&str>| Given { name: name.into(), value: value.map(Into::into) };
        assert_eq!(
            options("  a-b=1 c d=\"x y=z\"  \"e=f g\"\t=h"),
            [
                given("a_b", Some("1")),
                given("c", None),
                given("d", Some("x y=z")),
                given("e", Some("f g")),
                given("", Some("h"))
            ]
        );
        assert_eq!(options(" "), []);
    }

    #[test]
    fn only_what_is_certain_to_fail_is_refused() {
        for (kind, value, is_refused) in [
            ("bool", Some("garbage"), true),
            ("bool", Some(""), true),
            ("bool", Some("ox"), true),
            ("bool", None, false),
            ("bool", Some("1"), false),
            ("bool", Some("oFF"), false),
            ("bool", Some("enabled"), false),
            ("invbool", Some("2"), true),
            ("int", Some("-1"), false),
            ("int", Some("0x7fffffff"), false),
            ("int", Some("0x80000000"), true),
            ("int", Some("1 "), true),
            ("int", None, true),
            ("uint", Some("-1"), true),
            ("uint", Some("+1"), false),
            ("uint", Some("017"), false),
            ("uint", Some("08"), true),
            ("uint", Some("0x"), true),
            ("uint", Some("+-1"), true),
            ("byte", Some("256"), true),
            ("ullong", Some("18446744073709551615"), false),
            ("ullong", Some("18446744073709551616"), true),
            ("ullong", Some("99999999999999999999999999999999999999999999"), true),
            ("charp", Some(""), false),
            ("charp", None, true),
            ("array of int", Some("1,2,-3"), false),
            ("array of int", Some("1,x"), true),
            ("string", Some("anything"), false),
            ("string", None, false),
        ] {
            assert_eq!(refused(kind, value).is_some(), is_refused, "{kind} {value:?}");
        }
    }

    #[test]
    fn what_changes_is_reported() {
        let now = |value: &str| BTreeMap::from([("p".to_owned(), value.to_owned())]);
        let changed = |kind, value: Option<&str>, before: &str| {
            let option = Given { name: "p".into(), value: value.map(Into::into) };
            changed(kind, &option, &now(before)).is_some()
        };
        for (kind, value, before, expected) in [
            ("bool", Some("1"), "Y\n", false),
            ("bool", None, "N", true),
            ("bool", Some("off"), "Y", true),
            ("int", Some("0x10"), "16", false),
            ("int", Some("0x10"), "17", true),
            ("charp", Some("a"), "a", false),
            ("charp", Some("a"), "(null)", true),
            ("string", Some("a"), "b", false),
        ] {
            assert_eq!(changed(kind, value, before), expected, "{kind} {value:?} {before}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in ".{0,40}", kind in "bool|int|byte|ullong|charp|array of int") {
            for option in options(&line) {
                refused(&kind, option.value.as_deref());
                changed(&kind, &option, &BTreeMap::from([(option.name.clone(), line.clone())]));
            }
        }

        #[test]
        fn every_number_of_the_type_is_taken(number in any::<i32>(), other in any::<u64>()) {
            prop_assert!(refused("int", Some(&number.to_string())).is_none());
            let hexadecimal = format!("{other:#x}");
            let octal = format!("0{other:o}");
            for text in [other.to_string(), hexadecimal, octal] {
                prop_assert_eq!(super::number("ullong", &text), Ok(i128::from(other)));
            }
        }
    }
}
