// SPDX-License-Identifier: MIT
//! Xids, and logs with them, explained.

use xid::catalogue::{Entry, RECOVERY_ACTION_CHANGED, UNUSED, action_in_words};
use xid::{Class, Line};

use super::table::{Column, table};
use super::text::{count, wrap};
use super::{Paint, Style};

/// Where the values begin.
const LABEL: usize = 11;

const CODES: [Column; 4] = [
    Column { title: "XID", right: true, least: 0, rank: 0 },
    Column { title: "CLASS", right: false, least: 0, rank: 0 },
    Column { title: "NVIDIA'S ACTION", right: false, least: 0, rank: 0 },
    Column { title: "WHAT IT IS", right: false, least: 0, rank: 0 },
];

const LINES: [Column; 4] = [
    Column { title: "LINE", right: true, least: 0, rank: 0 },
    Column { title: "CLASS", right: false, least: 0, rank: 0 },
    Column { title: "GPU", right: false, least: 0, rank: 0 },
    Column { title: "WHAT IT IS", right: false, least: 0, rank: 0 },
];

/// A paragraph for each code.
pub fn some(entries: &[&Entry], style: Style) -> String {
    entries.iter().map(|entry| one(entry, style)).collect::<Vec<_>>().join("\n")
}

fn one(entry: &Entry, style: Style) -> String {
    let code = format!("Xid {}", entry.code);
    let title = match entry.title {
        UNUSED => "drivers do not raise it any more, says NVIDIA's catalogue",
        title => title,
    };
    let mut text = wrap(&format!("{code}: "), title, style.width);
    text = text.replacen(&code, &style.paint(Paint::Strong, &code), 1);
    let action = match entry.action {
        "" => action_in_words(entry.action).to_owned(),
        action => format!("{action}: {}", action_in_words(action)),
    };
    let class = match entry.code {
        RECOVERY_ACTION_CHANGED => (entry.what_we_do().to_owned(), None),
        _ => (format!("{}: {}", entry.class.name(), entry.what_we_do()), paint(entry.class)),
    };
    for (label, (value, paint)) in [
        ("Name", (entry.mnemonic.to_owned(), None)),
        ("NVIDIA", (action, None)),
        ("Class", class),
        ("Also", (entry.remark.to_owned(), None)),
    ] {
        if value.is_empty() {
            continue;
        }
        let line = wrap(&format!("  {label:LABEL$}"), &value, style.width);
        // Painted last, since paint has no width.
        let line = line.replacen(label, &style.paint(Paint::Faint, label), 1);
        let name = entry.class.name();
        text.push_str(&match paint {
            Some(paint) => line.replacen(name, &style.paint(paint, name), 1),
            None => line,
        });
    }
    text
}

fn paint(class: Class) -> Option<Paint> {
    match class {
        Class::Info | Class::App => None,
        Class::Reload => Some(Paint::Good),
        Class::Support => Some(Paint::Attention),
        Class::Failed | Class::Reset | Class::Reboot => Some(Paint::Bad),
    }
}

/// All codes in a table, and what the classes are.
pub fn all(entries: &[&Entry], style: Style) -> String {
    let row = |entry: &&Entry| {
        let title = if entry.title == UNUSED { "unused" } else { entry.title };
        vec![
            entry.code.to_string(),
            if entry.code == RECOVERY_ACTION_CHANGED { "varies" } else { entry.class.name() }.to_owned(),
            if entry.action.is_empty() { "-" } else { entry.action }.to_owned(),
            title.to_owned(),
        ]
    };
    let mut page = table(style, &CODES, &entries.iter().map(row).collect::<Vec<_>>());
    page.push('\n');
    page.push_str(&classes(&Class::ALL, style));
    page
}

/// What some classes mean for a reload.
fn classes(classes: &[Class], style: Style) -> String {
    let line = |class: &Class| {
        let line = wrap(&format!("{:9}", class.name()), class.what_we_do(), style.width);
        line.replacen(class.name(), &style.paint(Paint::Strong, class.name()), 1)
    };
    classes.iter().map(line).collect()
}

/// What a log of so many lines says.
pub fn log(found: &[Line], lines: usize, style: Style) -> String {
    if found.is_empty() {
        let lines = count(lines, "line", "lines");
        return format!("{lines}, and none of them is a message of NVIDIA's driver about its GPUs.\n");
    }
    let row = |line: &Line| {
        vec![
            line.line_number.unwrap_or_default().to_string(),
            line.cls.map_or("-", Class::name).to_owned(),
            line.event.address().map_or("-".to_owned(), |address| address.to_string()),
            line.event.to_string(),
        ]
    };
    let mut page = table(style, &LINES, &found.iter().map(row).collect::<Vec<_>>());
    let recognised = count(found.len(), "message", "messages");
    page.push_str(&format!("\n{recognised} of the driver in {}.\n", count(lines, "line", "lines")));
    let is_seen = |class: &Class| found.iter().any(|line| line.cls == Some(*class));
    let seen: Vec<Class> = Class::ALL.into_iter().filter(is_seen).collect();
    page.push_str(&classes(&seen, style));
    page
}

#[cfg(test)]
mod tests {
    use super::super::text::width;
    use super::*;

    const NARROW: Style = Style { width: Some(80), ..Style::PLAIN };

    fn entries(codes: &[u32]) -> Vec<&'static Entry> {
        codes.iter().filter_map(|code| xid::catalogue::entry(*code)).collect()
    }

    const LOG: &str = "\
[    5.499014] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.105.08  Wed Oct 29 23:15:11 UTC 2025
[  130.456250] NVRM: Xid (PCI:0000:2b:00): 31, pid=1942, name=llama-bench, channel 0x00000002, intr 00000000. MMU Fault
[  131.000000] usb 1-1: new high-speed USB device
[ 9000.123456] NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected function 103 (GSP_RM_ALLOC) (0x2081 0x4).
[ 9000.123999] NVRM: Xid (PCI:0000:9b:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)
";

    fn found() -> Vec<Line> {
        let mut found = Vec::new();
        xid::read_log(LOG.as_bytes(), |line| found.push(line)).expect("reads");
        found
    }

    #[test]
    fn codes_are_explained_in_paragraphs() {
        insta::assert_snapshot!(some(&entries(&[79, 61, 154, 163]), NARROW));
    }

    #[test]
    fn the_table_of_all_codes_fits() {
        let page = all(&entries(&(1..=176).collect::<Vec<_>>()), NARROW);
        assert!(page.lines().all(|line| width(line) <= 80), "{page}");
        let rows: Vec<&str> = page.lines().take(48).chain(page.lines().skip(177)).collect();
        insta::assert_snapshot!(rows.join("\n"));
    }

    #[test]
    fn a_log_is_explained_line_by_line() {
        for width in [80, 120] {
            let style = Style { width: Some(width), ..Style::PLAIN };
            insta::assert_snapshot!(format!("a_log_on_{width}_columns"), log(&found(), 5, style));
        }
    }

    #[test]
    fn a_log_without_the_driver_is_said_to_be_that() {
        insta::assert_snapshot!(log(&[], 4711, NARROW), @"4711 lines, and none of them is a message of NVIDIA's driver about its GPUs.");
    }
}
