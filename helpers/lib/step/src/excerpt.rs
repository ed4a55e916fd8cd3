// SPDX-License-Identifier: MIT
//! What the journal has of a run: of our own units, or of the kernel. journalctl knows which entries may say that
//! they are of a unit (`-u`): any program can write the fields.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::text;
use crate::units::{DRAINED, OFFLINE, RELOAD, RESET};

/// As much is read of journalctl's answer, in bytes.
const MOST_BYTES: usize = 32 << 20;

/// The longest message, in bytes.
const LONGEST: usize = 2048;

/// The fields that are asked for.
const FIELDS: &str = "MESSAGE,MESSAGE_ID,PRIORITY,UNIT,OBJECT_SYSTEMD_UNIT,_SYSTEMD_UNIT,_PID,_UID";

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in microseconds since 1970.
    pub at_usec: u64,
    /// The unit that it is about; `kernel` for the kernel's own.
    pub unit: String,
    /// As syslog has it: 3 for an error, 4 for a warning, …
    pub priority: u8,
    /// The text, with everything escaped that would do something to a terminal.
    pub message: String,
    /// What it means, see `journalctl -x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
}

/// Whose entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Those of our units and about them.
    OurUnits,
    /// Those of the kernel.
    Kernel,
}

/// Which entries.
#[derive(Debug, Clone)]
pub struct Excerpt<'a> {
    /// Whose.
    pub of: Of,
    /// The boots, as the kernel writes their ids.
    pub boots: &'a [String],
    /// From this time on, in microseconds since 1970.
    pub since_usec: u64,
    /// Up to this time; without, up to now.
    pub until_usec: Option<u64>,
    /// As many, the last ones.
    pub most: usize,
}

/// Reads them, the oldest first.
///
/// # Errors
/// journalctl cannot be run, does not end well or not by `until`, or its answer is no journal's.
pub fn excerpt(asked: &Excerpt<'_>, until: Instant) -> Result<Vec<Entry>> {
    let mut command = Command::new("journalctl");
    command.args(arguments(asked));
    let (status, output) =
        bounded::child(&mut command, until, MOST_BYTES).context("read the journal with journalctl")?;
    if !status.success() {
        bail!("journalctl ended with {status}");
    }
    let mut entries = Vec::new();
    for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        entries.push(entry(asked.of, line).context("understand what journalctl writes")?);
    }
    // It takes whole seconds.
    let is_asked = |entry: &Entry| {
        entry.at_usec >= asked.since_usec && asked.until_usec.is_none_or(|until| entry.at_usec <= until)
    };
    entries.retain(is_asked);
    Ok(entries)
}

fn arguments(asked: &Excerpt<'_>) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["--quiet", "--no-pager", "--output=json"].iter().map(ToString::to_string).collect();
    arguments.push(format!("--output-fields={FIELDS}"));
    arguments.push(format!("--lines={}", asked.most));
    arguments.push(format!("--since=@{}", asked.since_usec / 1_000_000));
    arguments.extend(asked.until_usec.map(|until| format!("--until=@{}", until / 1_000_000 + 1)));
    match asked.of {
        Of::OurUnits => {
            let units = ["nvidia-reload-*", RELOAD, RESET, DRAINED, OFFLINE];
            arguments.extend(units.iter().map(|unit| format!("--unit={unit}")));
        }
        // journald sets these itself, from what the kernel gives it: no program can.
        Of::Kernel => arguments.extend(["_TRANSPORT=kernel".to_owned(), "SYSLOG_FACILITY=0".to_owned()]),
    }
    arguments.extend(asked.boots.iter().map(|boot| format!("_BOOT_ID={}", boot.replace('-', ""))));
    arguments
}

fn entry(of: Of, line: &[u8]) -> Result<Entry> {
    let fields: serde_json::Map<String, Value> = serde_json::from_slice(line)?;
    let text = |name: &str| fields.get(name).map(field);
    let at_usec =
        text("__REALTIME_TIMESTAMP").and_then(|time| time.parse().ok()).context("an entry without time")?;
    let is = |name: &str, value: &str| text(name).as_deref() == Some(value);
    let unit = match of {
        Of::Kernel => "kernel".to_owned(),
        // Who may say so, as `journalctl -u` has it.
        Of::OurUnits => text("OBJECT_SYSTEMD_UNIT")
            .filter(|_| is("_UID", "0"))
            .or_else(|| text("UNIT").filter(|_| is("_PID", "1")))
            .or_else(|| text("_SYSTEMD_UNIT"))
            .unwrap_or_default(),
    };
    Ok(Entry {
        at_usec,
        unit: text::short(&unit, LONGEST),
        priority: text("PRIORITY").and_then(|priority| priority.parse().ok()).unwrap_or(6),
        message: text::short(&text("MESSAGE").unwrap_or_default(), LONGEST),
        message_id: text("MESSAGE_ID").filter(|id| id.chars().all(|c| c.is_ascii_hexdigit())),
    })
}

/// A field's text: journalctl writes one that is no text as numbers, one that is there twice as a list, and one of
/// more than 4096 bytes as null.
fn field(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let bytes: Option<Vec<u8>> =
                list.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect();
            match bytes {
                Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                None => list.first().map(field).unwrap_or_default(),
            }
        }
        Value::Null => "(too long to be shown)".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_asked_for_by_unit_boot_and_time() {
        let boots = ["0a1b-2c".to_owned()];
        let asked = Excerpt {
            of: Of::OurUnits,
            boots: &boots,
            since_usec: 7_500_000,
            until_usec: Some(9_100_000),
            most: 5,
        };
        let words = arguments(&asked);
        for word in [
            "--lines=5",
            "--since=@7",
            "--until=@10",
            "--unit=nvidia-reload-*",
            "--unit=nvidia-offline.target",
            "_BOOT_ID=0a1b2c",
        ] {
            assert!(words.iter().any(|found| found == word), "{word} is not in {words:?}");
        }
        let kernel = arguments(&Excerpt { of: Of::Kernel, until_usec: None, ..asked });
        assert!(kernel.contains(&"_TRANSPORT=kernel".to_owned()), "{kernel:?}");
        assert!(
            !kernel.iter().any(|word| word.starts_with("--unit") || word.starts_with("--until")),
            "{kernel:?}"
        );
    }

    #[test]
    fn only_root_may_say_that_it_speaks_of_a_unit_and_nothing_reaches_a_terminal() {
        let of = |line: &str| entry(Of::OurUnits, line.as_bytes()).expect("is an entry");
        let said =
            of(r#"{"__REALTIME_TIMESTAMP": "5", "PRIORITY": "4", "MESSAGE": "a\u001b[2J", "_UID": "0",
            "OBJECT_SYSTEMD_UNIT": "nvidia-reload-verify.service", "_SYSTEMD_UNIT": "session-3.scope"}"#);
        assert_eq!((said.at_usec, said.priority, said.message.as_str()), (5, 4, r"a\x1b[2J"));
        assert_eq!(said.unit, "nvidia-reload-verify.service");
        let forged = of(r#"{"__REALTIME_TIMESTAMP": "5", "MESSAGE": "x", "_UID": "1000", "_PID": "7",
            "OBJECT_SYSTEMD_UNIT": "nvidia-reload-verify.service", "UNIT": "nvidia-reload-verify.service",
            "_SYSTEMD_UNIT": "nvidia-reload-user@1000.service"}"#);
        assert_eq!(forged.unit, "nvidia-reload-user@1000.service");
        let bytes = of(r#"{"__REALTIME_TIMESTAMP": "5", "MESSAGE": [104, 105, 255]}"#);
        assert_eq!(bytes.message, "hi\u{fffd}");
        let long = of(r#"{"__REALTIME_TIMESTAMP": "5", "MESSAGE": null, "MESSAGE_ID": "<b>"}"#);
        assert_eq!((long.message.as_str(), long.message_id), ("(too long to be shown)", None));
        entry(Of::OurUnits, b"{}").expect_err("has no time");
        entry(Of::OurUnits, b"-- No entries --").expect_err("is no entry");
    }
}
