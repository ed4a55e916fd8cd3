// SPDX-License-Identifier: MIT
//! A line of a saved log: what was put before the kernel's message, and around it.

use std::borrow::Cow;

use serde::Serialize;

use crate::classify::class;
use crate::prefix::without_prefix;
use crate::{Branch, Class, Detail, Event, nvlink, parse};

/// The name and version of what [`Line`] is in JSON.
pub const SCHEMA: &str = "nvidia-reload.message/1";

/// A recognised line, as `nvidia-reload explain --log --json` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Where it begins in the file, counted from 1; none for a line from elsewhere.
    pub line_number: Option<usize>,
    /// What it means for a reload; none for messages that only tell.
    pub cls: Option<Class>,
    /// NVIDIA's action for Xids 144 to 150, where a rule is for the message.
    pub resolution: Option<nvlink::Resolution>,
    /// Only switching the power off and on again helps.
    pub cold: bool,
    /// The message has several lines.
    pub multiline: bool,
    /// What it is.
    #[serde(flatten)]
    pub event: Event,
}

impl Line {
    /// Reads one line of a log, or several that are one message.
    pub fn read(text: &str) -> Option<Self> {
        Self::read_under(text, None)
    }

    /// The same, of a driver of `branch`, where that is known.
    pub(crate) fn read_under(text: &str, branch: Option<Branch>) -> Option<Self> {
        let message = message(text)?;
        let event = parse(&message)?;
        let resolution = match &event {
            Event::Xid(xid) => match &xid.detail {
                Detail::NvLink5(reported) => nvlink::resolution(xid.xid, reported, branch),
                _ => None,
            },
            _ => None,
        };
        Some(Self {
            schema: SCHEMA,
            line_number: None,
            cls: class(&event, branch),
            resolution,
            cold: matches!(&event, Event::Xid(xid) if xid.xid == 110),
            multiline: message.trim_end().contains('\n'),
            event,
        })
    }
}

/// The kernel's message in a line of a log, with its own line ends; none where the line is not one of
/// the driver's, or another program's that only quotes it.
pub fn message(text: &str) -> Option<String> {
    let text = unescape(&uncoloured(text));
    let mut lines = text.lines();
    let mut message = lines.next().and_then(without_prefix)?.to_owned();
    for line in lines {
        message.push('\n');
        message.push_str(without_prefix(line).unwrap_or(line));
    }
    Some(message)
}

/// Without what dmesg and journalctl colour a terminal with: `ESC [ 33 m`.
fn uncoloured(text: &str) -> Cow<'_, str> {
    const ESCAPE: &str = "\u{1b}[";
    if !text.contains(ESCAPE) {
        return text.into();
    }
    let mut parts = text.split(ESCAPE);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let behind = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match behind.strip_prefix(['m', 'K']) {
            Some(behind) => plain.push_str(behind),
            None => plain.extend([ESCAPE, part]),
        }
    }
    plain.into()
}

/// /dev/kmsg writes a line end as `\x0a`, rsyslog as `#012`, JSON as `\n`. Only where the driver goes
/// on behind it: a process may be named so.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '#']) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        let behind = ["\\x0a", "#012", "\\n"]
            .iter()
            .find_map(|escape| from.strip_prefix(escape))
            .filter(|behind| behind.trim_start().starts_with("NVRM:"));
        match behind {
            Some(behind) => {
                plain.push('\n');
                rest = behind;
            }
            None => {
                plain.push_str(&from[..1]);
                rest = &from[1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const XID: &str = "NVRM: Xid (PCI:0000:01:00): 31, pid=7, name=a, text";

    #[test]
    fn whatever_logs_put_before_a_message_is_taken_off() {
        for prefix in [
            "",
            "  ",
            "[    5.499014] ",
            "[ 130.456250] [ T1946] ",
            "[Sun Feb 23 16:24:18 2025] ",
            "[Feb23 16:24] ",
            "[  +0.000005] ",
            "<4>[  12.5] ",
            "4,1234,567890,-;",
            "4,1234,567890,-,caller=T17;",
            "kern  :warn  : [  12.5] ",
            "kern  :err   : 2025-01-21T04:41:44,283390+00:00 ",
            "kernel: ",
            "host kernel: ",
            "Feb 23 16:24:18 host kernel: ",
            "Feb 23 16:24:18 host kernel: [  885.242168] ",
            "kwi 15 07:56:59 testowy kernel: ",
            "2月 23 16:24:18 host kernel: ",
            "2025-01-21T04:41:44.283390+00:00 host.example.org kernel: ",
            "2025-01-21 04:41:44 host kernel: ",
            "Sun 2025-02-23 16:24:18 UTC host kernel: ",
            "1740327858.123456 host kernel: ",
            "[   12.345678] host kernel: ",
            "<4>1 2025-01-21T04:41:44.283390+00:00 host kernel - - - ",
            "Sep 18 20:07:01 ",
        ] {
            assert_eq!(message(&format!("{prefix}{XID}")).as_deref(), Some(XID), "{prefix}");
        }
    }

    #[test]
    fn what_others_say_about_the_driver_is_not_the_drivers() {
        for prefix in [
            "Feb 23 16:24:18 host logger[12]: ",
            "Feb 23 16:24:18 host logger: ",
            "Feb 23 16:24:18 host app[12]: kernel: ",
            "Feb 23 16:24:18 host kernel: app: ",
            "Feb 23 16:24:18 host kernel[12]: ",
            "I saw ",
            "he wrote kernel: ",
            "[  12.5] systemd[1]: ",
            "[  12.5] saw ",
            "user  :notice: [  12.5] ",
            // Written to /dev/kmsg by a program: facility 1.
            "12,1234,567890,-;",
            "<12>[  12.5] ",
            // A field of the journal without the one that says whose it is.
            "MESSAGE=",
            "    MESSAGE=",
            "x",
        ] {
            assert_eq!(message(&format!("{prefix}{XID}")), None, "{prefix}");
        }
    }

    #[test]
    fn an_escaped_line_end_is_one_where_the_driver_goes_on() {
        for escape in ["\\x0a", "#012", "#012               ", "\\n", "\n", "\n      "] {
            let text = format!("[  9.4] NVRM: a{escape}NVRM: b");
            let read = message(&text)
                .map(|message| message.split('\n').map(str::trim).collect::<Vec<_>>().join("|"));
            assert_eq!(read.as_deref(), Some("NVRM: a|NVRM: b"), "{text}");
        }
        assert_eq!(message("NVRM: name=a#012b\\x0ac").as_deref(), Some("NVRM: name=a#012b\\x0ac"));
    }
}
