// SPDX-License-Identifier: MIT
//! How long a run may take: what the last one of its kind took, and what the limits are.

use ledger::{Recorded, Run};
use serde::Serialize;
use step::{Config, Root};

use crate::kind::Kind;
use crate::report::Outcome;
use crate::runs::{Summary, What, in_short, on_record};

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
    /// The longest time for which one workload was down; null where none was.
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
    let what = match command {
        Kind::Reload => What::Reload,
        Kind::Reset => What::Reset,
        Kind::Rollback => What::Rollback,
        Kind::Install => What::Install,
        // How long what is restored was stopped is up to a person.
        Kind::Stop | Kind::StopOffline | Kind::Start | Kind::Recover => return None,
    };
    let is_alike = |recorded: &&Recorded| recorded.run.snapshot.hold != Some(true);
    let runs = on_record(root).ok()?.runs;
    let mut alike = runs.iter().filter(is_alike).map(|recorded| in_short(root, recorded));
    took(&alike.find(|run| run.what == what && run.result == Some(Outcome::Done))?)
}

/// What `run` took, which is closed.
pub fn measured(root: &Root, run: &Run) -> Option<Took> {
    let runs = on_record(root).ok()?.runs;
    took(&in_short(root, runs.iter().find(|recorded| recorded.run.id == run.id)?))
}

fn took(run: &Summary) -> Option<Took> {
    let (seconds, ended_usec) = (run.seconds?, run.ended_usec?);
    Some(Took { seconds, downtime_seconds: run.downtime_seconds, ended_usec })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{DIRECTORY, Event, Object, Record, Snapshot, Step};
    use std::fs;

    fn lines(id: &str, events: &[(u64, Event)]) -> Vec<u8> {
        let line = |(usec, event): &(u64, Event)| {
            let record =
                Record { v: 1, run: id.into(), boot: "b".into(), realtime_usec: *usec, event: event.clone() };
            serde_json::to_string(&record).expect("encodes") + "\n"
        };
        events.iter().map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn the_last_good_run_of_the_same_kind_counts() {
        let unit = Object::Unit(ledger::Unit { name: "a.service".into(), user: None, role: "holder".into() });
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert_eq!(expected(&root, Kind::Reload).last, None);
        let history = root.path(DIRECTORY).join("history");
        fs::create_dir_all(&history).expect("creates");
        let boot = root.path("/proc/sys/kernel/random/boot_id");
        fs::create_dir_all(boot.parent().expect("has one")).expect("creates");
        fs::write(boot, "b\n").expect("writes");
        let record = |at: u64, id: &str, snapshot, outcome| {
            let text = lines(
                id,
                &[
                    (at * 1_000_000, Event::Opened { snapshot: Box::new(snapshot) }),
                    (
                        (at + 1) * 1_000_000,
                        Event::Intent { id: 1, step: Step::StopUnits, object: unit.clone() },
                    ),
                    ((at + 2) * 1_000_000, Event::Done { id: 1 }),
                    ((at + 8) * 1_000_000, Event::Undone { id: 1 }),
                    ((at + 10) * 1_000_000, Event::Closed { outcome }),
                ],
            );
            fs::write(history.join(format!("{:020}-{id}.jsonl", at * 1_000_000)), text).expect("writes");
        };
        let held = Snapshot { hold: Some(true), ..Snapshot::default() };
        record(100, "good", Snapshot::default(), ledger::Outcome::Done);
        record(200, "held", held, ledger::Outcome::Done);
        record(300, "failed", Snapshot::default(), ledger::Outcome::RolledBack);
        record(400, "reset", Snapshot { reset: true, ..Snapshot::default() }, ledger::Outcome::Done);
        fs::write(history.join("00000000000500000000-torn.jsonl"), b"{\n").expect("writes");
        let took = |at: u64| {
            Some(Took { seconds: 10.0, downtime_seconds: Some(7.0), ended_usec: (at + 10) * 1_000_000 })
        };
        assert_eq!(expected(&root, Kind::Reload).last, took(100));
        assert_eq!(expected(&root, Kind::Reset).last, took(400));
        assert_eq!(expected(&root, Kind::Install).last, None);
        assert_eq!(expected(&root, Kind::Start).last, None);
    }
}
