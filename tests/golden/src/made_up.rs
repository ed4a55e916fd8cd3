// SPDX-License-Identifier: MIT
//! Small parts of a machine, made up for one test.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

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

/// Writes a program of /bin/sh that does what `text` says, and makes its folder.
///
/// Another process writes it: a child that a test beside this one starts in that moment has our descriptors until
/// its exec, and a program that anyone has open for writing does not start (ETXTBSY).
///
/// # Panics
/// It cannot be written.
pub fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
    let mut writer = Command::new("sh")
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("runs");
    write!(writer.stdin.take().expect("is piped"), "#!/bin/sh\n{text}\n").expect("writes");
    assert!(writer.wait().expect("ends").success(), "{} cannot be written", path.display());
}
