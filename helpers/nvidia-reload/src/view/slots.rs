// SPDX-License-Identifier: MIT
//! The slots: the drivers that are saved.

use std::time::SystemTime;

use slots::Origin;

use super::table::{Column, table};
use super::text::{ago, bytes, clean, wrap};
use super::{Paint, Style};
use crate::slots::{List, State};

const COLUMNS: [Column; 6] = [
    Column { title: "DRIVER", right: false, least: 0, rank: 0 },
    Column { title: "IS", right: false, least: 0, rank: 0 },
    Column { title: "SAVED", right: false, least: 8, rank: 0 },
    Column { title: "FILES", right: true, least: 0, rank: 0 },
    Column { title: "SIZE", right: true, least: 0, rank: 0 },
    Column { title: "FILES BY", right: false, least: 0, rank: 0 },
];

/// The whole page.
pub fn slots(list: &List, style: Style, now: SystemTime) -> String {
    if list.slots.is_empty() {
        let text = "No driver is saved: `systemctl start nvidia-reload-save-driver.service` saves the one that is loaded, if it is the installed one.";
        return wrap("", text, style.width);
    }
    let unknown = || "-".to_owned();
    let rows: Vec<Vec<String>> = list
        .slots
        .iter()
        .map(|slot| {
            let is = match (slot.state, slot.loaded, slot.on_disk) {
                (State::Corrupt, ..) => "corrupt",
                (State::OtherKernel, ..) => "for another kernel",
                (_, true, true) => "loaded, installed",
                (_, true, false) => "loaded",
                (_, false, true) => "installed",
                (_, false, false) => "previous",
            };
            let (files, size) = match slot.made_usec {
                Some(_) => (slot.files.to_string(), bytes(slot.bytes)),
                None => (unknown(), unknown()),
            };
            vec![
                slot.version.clone(),
                is.to_owned(),
                slot.made_usec.map_or_else(unknown, |usec| ago(usec, now)),
                files,
                size,
                slot.origin.map_or_else(unknown, |origin| files_by(origin).to_owned()),
            ]
        })
        .collect();
    let mut page = table(style, &COLUMNS, &rows);
    for slot in list.slots.iter().filter(|slot| slot.state != State::Whole) {
        page.push('\n');
        let head = format!("{} cannot be rolled back to", slot.version);
        page.push_str(&format!("{}\n", style.paint(Paint::Bad, &clean(&head))));
        for problem in &slot.problems {
            page.push_str(&wrap("  - ", &clean(problem), style.width));
        }
    }
    page
}

fn files_by(origin: Origin) -> &'static str {
    match origin {
        Origin::Dpkg | Origin::Rpm => "packages",
        Origin::Installer => "installer's log",
        Origin::Names => "names",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{SCHEMA, Saved};

    fn list() -> List {
        let saved = |version: &str| Saved {
            version: version.into(),
            state: State::Whole,
            problems: Vec::new(),
            made_usec: Some(1_700_000_000_000_000),
            files: 112,
            bytes: 912 << 20,
            origin: Some(Origin::Dpkg),
            loaded: true,
            on_disk: true,
        };
        let corrupt = Saved {
            state: State::Corrupt,
            problems: vec![
                "/var/lib/nvidia-reload/slots/535.261.03/files/usr/bin/nvidia-smi: the checksum differs"
                    .into(),
            ],
            loaded: false,
            on_disk: false,
            origin: Some(Origin::Names),
            ..saved("535.261.03")
        };
        let unreadable =
            Saved { made_usec: None, origin: None, problems: vec!["no manifest".into()], ..corrupt.clone() };
        let unreadable = Saved { version: "520.1".into(), ..unreadable };
        List { schema: SCHEMA, slots: vec![saved("550.163.01"), corrupt, unreadable] }
    }

    #[test]
    fn what_is_kept_and_what_is_wrong_with_it() {
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_003_600);
        let style = Style { width: Some(80), ..Style::PLAIN };
        let page = slots(&list(), style, now);
        for part in [
            "550.163.01  loaded, installed",
            "535.261.03 cannot be rolled back to",
            "checksum differs",
            "520.1",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let none = List { schema: SCHEMA, slots: Vec::new() };
        assert!(slots(&none, style, now).starts_with("No driver is saved"));
    }
}
