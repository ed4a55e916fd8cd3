// SPDX-License-Identifier: MIT
//! Small parts of a machine, made up for one test.

use std::fs;

use ledger::{Event, Record, Run, Snapshot};
use step::Root;

/// The run `r1` of the boot `b`, opened on a machine of which nothing is known, with these events after that.
///
/// # Panics
/// The events do not add up.
pub fn run(events: &[Event]) -> Run {
    let opened = Event::Opened { snapshot: Box::new(Snapshot::default()) };
    let record = |event: &Event| {
        let event = event.clone();
        Record { v: ledger::VERSION, run: "r1".into(), boot: "b".into(), realtime_usec: 1, event }
    };
    let records: Vec<Record> = std::iter::once(&opened).chain(events).map(record).collect();
    Run::from_records(&records).expect("adds up")
}

/// Writes the file `path` below `root`, and makes its folder.
///
/// # Panics
/// It cannot be written.
pub fn write(root: &Root, path: &str, text: &str) {
    let path = root.path(path);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
    fs::write(path, text).expect("writes");
}
