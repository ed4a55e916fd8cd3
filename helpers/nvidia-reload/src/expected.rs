// SPDX-License-Identifier: MIT
//! How long a run may take: what the last one of its kind took, and what the limits are.

use std::collections::BTreeSet;
use std::fs;

use ledger::{DIRECTORY, Event, Object, Outcome, Record, Run};
use serde::Serialize;
use step::{Config, Root};

use crate::plan::Kind;

/// How many runs are looked at, the newest first.
const RUNS: usize = 10;

/// A run's file is larger only on a machine with tens of thousands of workloads.
const MOST: u64 = 64 << 20;

/// How long it may take.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Expected {
    /// What the last good run of this kind took; null where there is none.
    pub last: Option<Took>,
    /// The longest that a container gets to stop, in seconds.
    pub container_seconds: Option<u64>,
    /// The longest that a process gets to end, in seconds.
    pub process_seconds: Option<u64>,
}

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Took {
    /// From its start to its end.
    pub seconds: f64,
    /// From the first workload that was stopped to the last that was restarted; null where none was.
    pub downtime_seconds: Option<f64>,
    /// When it ended, in microseconds since 1970.
    pub ended_usec: u64,
}

/// What is known for `command`. That something cannot be read leaves it unknown: it is no more than an estimate.
pub fn expected(root: &Root, command: Kind) -> Expected {
    let config = Config::load(root).ok();
    Expected {
        last: last(root, command),
        container_seconds: config.as_ref().map(|config| config.containers.stop_timeout_max),
        process_seconds: config.as_ref().map(|config| config.processes.grace),
    }
}

fn last(root: &Root, command: Kind) -> Option<Took> {
    // What is restored was not measured by itself, and how long it is kept stopped is up to a person.
    if command.holds() || command.restores() {
        return None;
    }
    let entries = fs::read_dir(root.path(DIRECTORY).join("history")).ok()?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // Their names begin with the time.
    paths.sort();
    paths.into_iter().rev().take(RUNS).find_map(|path| {
        let data = fs::symlink_metadata(&path).ok().filter(|data| data.is_file() && data.len() <= MOST)?;
        let text = fs::read(&path).ok().filter(|_| data.len() > 0)?;
        took(&text, Some(command))
    })
}

/// What `run` took, which is closed.
pub fn measured(root: &Root, run: &Run) -> Option<Took> {
    let name = format!("{:020}-{}.jsonl", run.opened_usec, run.id);
    let path = root.path(DIRECTORY).join("history").join(name);
    let data = fs::symlink_metadata(&path).ok().filter(|data| data.is_file() && data.len() <= MOST)?;
    let text = fs::read(&path).ok().filter(|_| data.len() > 0)?;
    took(&text, None)
}

/// What the run took whose lines these are. Of a `command`, none where it is of another kind, or did not end well.
fn took(text: &[u8], command: Option<Kind>) -> Option<Took> {
    let records = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let (mut opened, mut ended) = (None, None);
    let (mut workloads, mut down, mut up) = (BTreeSet::new(), None, None);
    for Record { event, realtime_usec, .. } in records {
        match event {
            Event::Opened { snapshot } => {
                let is_alike = |command: Kind| {
                    let exchanges = matches!(command, Kind::Install | Kind::Rollback);
                    snapshot.reset == (command == Kind::Reset)
                        && snapshot.install.is_some() == exchanges
                        && snapshot.hold != Some(true)
                };
                opened = command.is_none_or(is_alike).then_some(realtime_usec);
            }
            Event::Intent { id, object: Object::Container(_) | Object::Unit(_), .. } => {
                workloads.insert(id);
            }
            Event::Done { id } if workloads.contains(&id) => down = down.or(Some(realtime_usec)),
            Event::Undone { id } if workloads.contains(&id) => up = Some(realtime_usec),
            Event::Closed { outcome } => {
                ended = (command.is_none() || outcome == Outcome::Done).then_some(realtime_usec);
            }
            _ => {}
        }
    }
    let (opened, ended_usec) = (opened?, ended?);
    let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
    Some(Took {
        seconds: seconds(opened, ended_usec),
        downtime_seconds: down.zip(up).map(|(down, up)| seconds(down, up)),
        ended_usec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Snapshot, Step};

    fn lines(events: &[(u64, Event)]) -> Vec<u8> {
        let line = |(usec, event): &(u64, Event)| {
            let record = Record {
                v: 1,
                run: "r".into(),
                boot: "b".into(),
                realtime_usec: *usec,
                event: event.clone(),
            };
            serde_json::to_string(&record).expect("encodes") + "\n"
        };
        events.iter().map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn the_last_good_run_of_the_same_kind_counts() {
        let unit = Object::Unit(ledger::Unit { name: "a.service".into(), user: None, role: "holder".into() });
        let run = |snapshot, outcome| {
            lines(&[
                (1_000_000, Event::Opened { snapshot: Box::new(snapshot) }),
                (2_000_000, Event::Intent { id: 1, step: Step::StopUnits, object: unit.clone() }),
                (3_000_000, Event::Done { id: 1 }),
                (9_000_000, Event::Undone { id: 1 }),
                (11_000_000, Event::Closed { outcome }),
            ])
        };
        let took = Took { seconds: 10.0, downtime_seconds: Some(6.0), ended_usec: 11_000_000 };
        let reload = run(Snapshot::default(), Outcome::Done);
        assert_eq!(super::took(&reload, Some(Kind::Reload)), Some(took));
        assert_eq!(super::took(&reload, Some(Kind::Reset)), None);
        assert_eq!(super::took(&reload, Some(Kind::Install)), None);
        let held = run(Snapshot { hold: Some(true), ..Snapshot::default() }, Outcome::Done);
        assert_eq!(super::took(&held, Some(Kind::Reload)), None, "how long it was held is a person's doing");
        assert_eq!(super::took(&run(Snapshot::default(), Outcome::RolledBack), Some(Kind::Reload)), None);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert_eq!(expected(&root, Kind::Reload).last, None);
        let history = root.path(DIRECTORY).join("history");
        fs::create_dir_all(&history).expect("creates");
        fs::write(history.join("00000000000000000001-r.jsonl"), reload).expect("writes");
        fs::write(history.join("00000000000000000002-s.jsonl"), b"{\n").expect("writes");
        assert_eq!(expected(&root, Kind::Reload).last, Some(took));
    }
}
