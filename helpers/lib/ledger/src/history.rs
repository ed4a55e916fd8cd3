// SPDX-License-Identifier: MIT
//! The runs on record, with the time of everything that happened, and what was saved of their failures.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use files::{check_owner, replace};

use crate::record::{Record, Run};
use crate::retire::{FAILURE, closed, name};
use crate::store::Ledger;
use crate::tally::Tally;

/// As much is read of what was saved of a failure.
const MOST: u64 = 8 << 20;

/// A run on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What its lines add up to.
    pub run: Run,
    /// Its lines, in order, without those that are damaged.
    pub records: Vec<Record>,
}

/// All runs on record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The newest first; the open one, if there is one, before all others.
    pub runs: Vec<Recorded>,
    /// The records that cannot be read, each with why.
    pub unreadable: Vec<String>,
}

impl Ledger {
    /// All runs on record: the open one and the closed ones. One that cannot be read keeps none of the others
    /// from being read.
    ///
    /// # Errors
    /// The history cannot be listed, or others than root could have written it.
    pub fn on_record(&self) -> Result<History> {
        let mut paths = closed(&self.history())?;
        let open = self.path();
        if open.try_exists().with_context(|| format!("look at {}", open.display()))? {
            check_owner(&open)?;
            paths.push(open);
        }
        let mut history = History::default();
        for path in paths.iter().rev() {
            match recorded(path) {
                Ok(run) => history.runs.push(run),
                // The open one was closed, or an old one removed, since they were listed.
                Err(error) if is_gone(&error) => {}
                Err(error) => history.unreadable.push(format!("{}: {error:#}", path.display())),
            }
        }
        // A run that was closed meanwhile is in both places.
        let mut seen = std::collections::BTreeSet::new();
        history.runs.retain(|recorded| seen.insert(recorded.run.id.clone()));
        Ok(history)
    }

    /// Saves `text`, the machine as it was when `run` failed, with the record of the run. Whether it did: the first
    /// one stays.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save_failure(&self, run: &Run, text: &[u8]) -> Result<bool> {
        let path = self.failure_path(run);
        let _lock = self.lock()?;
        if path.try_exists().with_context(|| format!("look at {}", path.display()))? {
            return Ok(false);
        }
        // Command lines are in it: root only. The folder is root's alone, too.
        replace(&path, 0o600, text).with_context(|| format!("write {}", path.display()))?;
        Ok(true)
    }

    /// What [`Ledger::save_failure`] saved of `run`, if it did.
    ///
    /// # Errors
    /// It cannot be read, or is too long to have been written by this program.
    pub fn failure(&self, run: &Run) -> Result<Option<Vec<u8>>> {
        let path = self.failure_path(run);
        let mut text = Vec::new();
        match fs::File::open(&path).and_then(|file| file.take(MOST + 1).read_to_end(&mut text)) {
            Ok(_) if text.len() as u64 > MOST => bail!("{} has more than {MOST} bytes", path.display()),
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    fn failure_path(&self, run: &Run) -> PathBuf {
        let name = name(run.opened_usec, &run.id);
        self.history().join(format!("{}{FAILURE}", name.trim_end_matches("jsonl")))
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

fn recorded(path: &Path) -> Result<Recorded> {
    let text = fs::read(path).context("read it")?;
    let mut tally = Tally::new(path);
    tally.add(&text)?;
    let run = tally.run()?;
    let records = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    Ok(Recorded { records: records.filter(|record: &Record| record.run == run.id).collect(), run })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::record::Outcome;
    use crate::retire::HISTORY;
    use crate::{Event, Snapshot, Step};

    #[test]
    fn the_runs_on_record_are_those_that_can_be_read_the_newest_first() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ledger = Ledger::new(directory.path().join("lib"), "boot-1");
        assert_eq!(ledger.on_record().expect("reads"), History::default());
        let first = ledger.open(Snapshot::default()).expect("opens");
        ledger.step_done(Step::Preflight, 7).expect("writes");
        ledger.close(Outcome::Done).expect("closes");
        let second = ledger.open(Snapshot::default()).expect("opens");
        let history = ledger.on_record().expect("reads");
        let ids: Vec<&String> = history.runs.iter().map(|recorded| &recorded.run.id).collect();
        assert_eq!(ids, [&second, &first]);
        let done = &history.runs[1].records[1];
        assert_eq!(done.event, Event::StepDone { step: Step::Preflight, began_usec: 7 });
        let odd = directory.path().join("lib/history/00000000000000000001-odd.jsonl");
        fs::write(&odd, "not a line\n").expect("writes");
        let history = ledger.on_record().expect("reads");
        assert_eq!((history.runs.len(), history.unreadable.len()), (2, 1));
        assert!(history.unreadable[0].contains("00001-odd.jsonl"), "{:?}", history.unreadable);
    }

    #[test]
    fn the_first_failure_is_saved_for_root_and_goes_with_the_record_of_its_run() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ledger = Ledger::new(directory.path().join("lib"), "boot-1");
        ledger.open(Snapshot::default()).expect("opens");
        let run = ledger.read().expect("reads").expect("is open");
        assert_eq!(ledger.failure(&run).expect("reads"), None);
        assert!(ledger.save_failure(&run, b"first").expect("saves"));
        assert!(!ledger.save_failure(&run, b"second").expect("has one"));
        assert_eq!(ledger.failure(&run).expect("reads").as_deref(), Some(&b"first"[..]));
        let path = ledger.failure_path(&run);
        assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o7777, 0o600);
        for at in 0..HISTORY {
            ledger.close(Outcome::RolledBack).expect("closes");
            assert!(path.exists(), "after {at} more");
            ledger.open(Snapshot::default()).expect("opens");
        }
        ledger.close(Outcome::Done).expect("closes");
        assert!(!path.exists(), "its record is gone");
        assert_eq!(fs::read_dir(ledger.history()).expect("lists").count(), HISTORY);
    }
}
