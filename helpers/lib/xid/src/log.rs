// SPDX-License-Identifier: MIT
//! A saved log, of any machine and any kind.

use std::io::{self, BufRead};

use crate::export::{Entry, Lines, Within};
use crate::json::{Objects, kernels_message};
use crate::prefix::is_beginning;
use crate::{Branch, Event, Line, message};

/// The driver's longest message has five lines.
const MOST_LINES: usize = 6;

/// What begins a message of several lines, behind `NVRM: `.
const SEVERAL_LINES: [&str; 2] = ["API mismatch: ", "The NVIDIA GPU "];

/// Reads a log to its end and gives `each` what it recognises, in order. Returns how many lines there
/// were.
///
/// Lines may be of dmesg, of the journal in any of its forms, of syslog, of /dev/kmsg, of Talos, and
/// objects in JSON. What says whose it is counts only where it says the kernel's.
///
/// # Errors
/// The log cannot be read to its end.
pub fn read_log(reader: impl BufRead, mut each: impl FnMut(Line)) -> io::Result<usize> {
    let mut lines = Lines::new(reader);
    let mut open: Option<(usize, String, usize)> = None;
    // What the log says of the driver, so far.
    let mut branch = None;
    let mut give = |number: usize, text: &str| {
        if let Some(line) = Line::read_under(text, branch) {
            if let Event::DriverLoad { version, .. } = &line.event {
                branch = Branch::of_version(version);
            }
            each(Line { line_number: Some(number), ..line });
        }
    };
    let mut entry = Entry::default();
    let mut within = Within::Lines;
    let mut objects = Objects::default();
    // The last line that is not indented was another's: what is indented below it is so too.
    let mut is_anothers = false;
    while lines.next()? {
        let ended = match within {
            Within::Lines => None,
            Within::Export => Some(!lines.field(&mut entry)?),
            Within::Verbose => Some(!lines.verbose_field(&mut entry)),
        };
        if let Some(ended) = ended {
            if !ended {
                continue;
            }
            if entry.says_kernel() {
                give(entry.number, &entry.message());
            }
            entry.clear();
            // An exported entry ends with an empty line, the other with whatever comes next.
            if std::mem::replace(&mut within, Within::Lines) == Within::Export {
                continue;
            }
        }
        within = lines.begins();
        match within {
            Within::Lines => {}
            Within::Export => {
                lines.field(&mut entry)?;
                continue;
            }
            Within::Verbose => continue,
        }
        let number = lines.number;
        let text = String::from_utf8_lossy(&lines.line);
        let message = message(&text);
        if let Some((first, so_far, count)) = &mut open {
            if *count < MOST_LINES && goes_on(&text) {
                so_far.push('\n');
                so_far.push_str(&text);
                *count += 1;
                continue;
            }
            give(*first, so_far);
            open = None;
        }
        if Objects::begins(&text) && !text.starts_with(char::is_whitespace) {
            objects.give_up();
        } else if message.is_some() {
            // Whatever began above is broken: no line of JSON looks so.
            objects.give_up();
        }
        if objects.goes_on() || Objects::begins(&text) {
            objects.take(number, &text, |first, object| {
                if let Some(message) = kernels_message(object) {
                    give(first, &message);
                }
            });
            continue;
        }
        if !text.starts_with(char::is_whitespace) {
            is_anothers = !text.is_empty() && message.is_none();
        } else if is_anothers && (is_beginning(text.trim_start()) || is_indented(&text)) {
            continue;
        }
        if message.is_some_and(|message| is_of_several_lines(&message)) {
            open = Some((number, text.into_owned(), 1));
        } else {
            give(number, &text);
        }
    }
    if let Some((first, so_far, _)) = open {
        give(first, &so_far);
    }
    if entry.says_kernel() {
        give(entry.number, &entry.message());
    }
    Ok(lines.number)
}

/// Whether a line is indented as those below another's are. A broadcast to terminals puts one blank before the
/// kernel's tag.
fn is_indented(text: &str) -> bool {
    text.starts_with('\t') || text.starts_with("  ")
}

fn is_of_several_lines(message: &str) -> bool {
    let behind = message.strip_prefix("NVRM: ").unwrap_or_default();
    SEVERAL_LINES.iter().any(|beginning| behind.starts_with(beginning))
}

/// Whether a line belongs to the message of several lines before it.
fn goes_on(text: &str) -> bool {
    message(text).is_some_and(|message| {
        is_beginning(&message) && !is_of_several_lines(&message) && Line::read(&message).is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is recognised: the lines' numbers and kinds.
    fn kinds(log: &[u8]) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        read_log(log, |line| {
            let kind = serde_json::to_value(&line).expect("encodes")["kind"].as_str().map(str::to_owned);
            found.push((line.line_number.expect("is of a log"), kind.expect("has a kind")));
        })
        .expect("reads");
        found
    }

    fn expected(found: &[(usize, &str)]) -> Vec<(usize, String)> {
        found.iter().map(|(number, kind)| (*number, (*kind).to_owned())).collect()
    }

    #[test]
    fn a_message_of_several_lines_is_one_wherever_its_lines_begin() {
        let dmesg = b"[  9.4] usb 1-1: new\n[  9.5] NVRM: API mismatch: the client 'kwin' (pid 1005)\n               NVRM: has the version 595.84, but this kernel module has\n               NVRM: the version 595.80.  Please make sure that this\n               NVRM: kernel module and all NVIDIA driver components\n               NVRM: have the same version.\n[  9.6] NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.\n";
        assert_eq!(kinds(dmesg), expected(&[(2, "api_mismatch"), (7, "xid")]));
        // The console and syslog stamp every line.
        let console = b"[  9.5] NVRM: The NVIDIA GPU 0000:b3:00.0\n[  9.5] NVRM: (PCI ID: 10de:26b5) installed in this system has\n[  9.5] NVRM: fallen off the bus and is not responding to commands.\n[  9.6] NVRM: The NVIDIA GPU 0000:b4:00.0\n[  9.6] NVRM: (PCI ID: 10de:26b5) installed in this system has\n[  9.6] NVRM: fallen off the bus and is not responding to commands.";
        assert_eq!(kinds(console), expected(&[(1, "gpu_lost"), (4, "gpu_lost")]));
    }

    #[test]
    fn of_exported_entries_only_the_kernels_count() {
        let mut log = Vec::new();
        let message = "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.";
        for (transport, facility) in [("kernel", "0"), ("syslog", "0"), ("kernel", "1")] {
            log.extend(
                format!(
                    "__CURSOR=x\n_TRANSPORT={transport}\nMESSAGE={message}\nSYSLOG_FACILITY={facility}\n\n"
                )
                .bytes(),
            );
        }
        let lost = "NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:26b5) installed in this system has\nNVRM: fallen off the bus and is not responding to commands.";
        log.extend(b"__CURSOR=x\nMESSAGE\n");
        log.extend((lost.len() as u64).to_le_bytes());
        log.extend(lost.bytes());
        log.extend(b"\n_TRANSPORT=kernel\n");
        assert_eq!(kinds(&log), expected(&[(3, "xid"), (17, "gpu_lost")]));
    }

    #[test]
    fn of_json_too() {
        let log = br#"{"MESSAGE":"NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.","_TRANSPORT":"kernel","SYSLOG_FACILITY":"0"}
{"MESSAGE":"NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.","_TRANSPORT":"journal"}
{"MESSAGE":[78,86,82,77,58,32,88,105,100,32,40,80,67,73,58,48,48,48,48,58,48,49,58,48,48,41,58,32,55,57,255]}
{"MESSAGE":[78,86,82,77,58,32,88,105,100,32,40,80,67,73,58,48,48,48,48,58,48,49,58,48,48,41,58,32,55,57],"_TRANSPORT":"kernel"}
{"MESSAGE":"NVRM: Xid (PCI:0000:01:00): 79, no word of whose it is"}
{"MESSAGE":null}
{broken
"#;
        assert_eq!(kinds(log), expected(&[(1, "xid"), (4, "xid")]));
    }

    #[test]
    fn the_branch_is_that_of_the_driver_in_the_log() {
        // Unit and subcode as drivers before 575 write them: 580 would mean something else by that.
        let error =
            "NVRM: Xid (PCI:0008:01:00): 145, RLW_RSPCOL Fatal XC0 i0 Link 03 (0x000000a2 0x00000002)\n";
        let of = |version: &str| {
            let log = format!("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  {version}  Wed\n{error}");
            let mut found = None;
            read_log(log.as_bytes(), |line| found = line.resolution).expect("reads");
            found
        };
        assert_eq!(of("570.86.15"), Some(crate::Resolution::ResetGpu));
        assert_eq!(of("580.105.08"), None);
    }

    #[test]
    fn a_line_without_an_end_costs_no_memory() {
        let mut log = vec![b'x'; 3 << 20];
        log.extend(b"\nNVRM: Xid (PCI:0000:01:00): 79\r\n");
        assert_eq!(kinds(&log), expected(&[(2, "xid")]));
    }
}
