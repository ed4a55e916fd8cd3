//! The file: locked by whoever writes, synced before the act, whole again after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::object::{Object, Snapshot, Step};
use crate::record::{Event, Outcome, Record, Run, VERSION};

/// Where the ledger lives on a machine.
pub const DIRECTORY: &str = "/var/lib/nvidia-reload";

/// How many closed runs are kept.
const HISTORY: usize = 50;

/// The ledger of a machine.
///
/// Holds no lock between calls: each line is written under the file's lock, so a helper that is
/// stuck in the kernel cannot keep the one that undoes its work from writing.
#[derive(Debug, Clone)]
pub struct Ledger {
    directory: PathBuf,
    boot: String,
}

impl Ledger {
    /// The ledger in `directory`, in the boot whose id is `boot`.
    pub fn new(directory: impl Into<PathBuf>, boot: impl Into<String>) -> Self {
        Self { directory: directory.into(), boot: boot.into() }
    }

    /// The kernel's id of this boot.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    fn path(&self) -> PathBuf {
        self.directory.join("ledger.jsonl")
    }

    fn history(&self) -> PathBuf {
        self.directory.join("history")
    }

    /// Begins a run and returns its id.
    ///
    /// # Errors
    /// There is an open run already, or the file cannot be written.
    pub fn open(&self, snapshot: Snapshot) -> Result<String> {
        for directory in [&self.directory, &self.history()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)
                .with_context(|| format!("create {}", directory.display()))?;
        }
        if let Some(run) = self.load()? {
            if run.outcome.is_none() {
                bail!("run {} is still open: `nvidia-reload rollback` ends it", run.id);
            }
            // The power went between the last line and the move.
            self.retire(&run)?;
        }
        let run = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .context("read /proc/sys/kernel/random/uuid")?
            .trim()
            .to_owned();
        // Written aside and linked in place: whoever reads sees no ledger or one with its first line.
        let new = self.directory.join("ledger.jsonl.new");
        // The command lines in it are nobody else's business: root only.
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .with_context(|| format!("create {}", new.display()))?;
        self.write(&mut file, &run, vec![Event::Opened { snapshot: Box::new(snapshot) }])?;
        let path = self.path();
        fs::hard_link(&new, &path).with_context(|| format!("create {}", path.display()))?;
        fs::remove_file(&new).with_context(|| format!("remove {}", new.display()))?;
        sync_directory(&self.directory)?;
        Ok(run)
    }

    /// The open run, if there is one. Lines torn by a power cut are left out: what they announced
    /// was never done, since the act comes after the sync.
    ///
    /// # Errors
    /// The file cannot be read, or holds what this version does not understand.
    pub fn read(&self) -> Result<Option<Run>> {
        Ok(self.load()?.filter(|run| run.outcome.is_none()))
    }

    fn load(&self) -> Result<Option<Run>> {
        let path = self.path();
        match fs::read(&path) {
            Ok(text) => run_of(&text, &path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Writes that `step` is about to act on `object`; returns the act's id.
    ///
    /// # Errors
    /// No open run, or the line is not safely on disk: then the act must not be done.
    pub fn intent(&self, step: Step, object: Object) -> Result<u64> {
        self.append(|run| {
            let id = run.acts.last().map_or(1, |act| act.id + 1);
            (id, vec![Event::Intent { id, step, object: object.clone() }])
        })
    }

    /// The same for any number of objects, in the time of one: they are in the ledger together before the
    /// first is touched.
    ///
    /// # Errors
    /// As those of [`Ledger::intent`]: then none of the acts may be done.
    pub fn intents(&self, step: Step, objects: Vec<Object>) -> Result<Vec<u64>> {
        self.append(|run| {
            let first = run.acts.last().map_or(1, |act| act.id + 1);
            let ids = (first..).take(objects.len()).collect();
            let numbered = (first..).zip(&objects);
            (ids, numbered.map(|(id, object)| Event::Intent { id, step, object: object.clone() }).collect())
        })
    }

    /// Writes that these acts did not happen, or took what cannot be given back (`lost`), with the reason.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn ended(&self, failed: &[u64], lost: &[u64], why_failed: &str, why_lost: &str) -> Result<()> {
        let failed = failed.iter().map(|id| Event::Failed { id: *id, reason: why_failed.to_owned() });
        let lost = lost.iter().map(|id| Event::Lost { id: *id, reason: why_lost.to_owned() });
        let events: Vec<Event> = failed.chain(lost).collect();
        self.append(|_| ((), events.clone()))
    }

    /// Writes that act `id` was done.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn done(&self, id: u64) -> Result<()> {
        self.event(Event::Done { id })
    }

    /// Writes that act `id` did not happen.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn failed(&self, id: u64, reason: impl Into<String>) -> Result<()> {
        self.event(Event::Failed { id, reason: reason.into() })
    }

    /// Writes that what act `id` took was given back.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn undone(&self, id: u64) -> Result<()> {
        self.event(Event::Undone { id })
    }

    /// Writes that what act `id` took cannot be given back.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn lost(&self, id: u64, reason: impl Into<String>) -> Result<()> {
        self.event(Event::Lost { id, reason: reason.into() })
    }

    /// Writes that giving back act `id` failed this time.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn undo_failed(&self, id: u64, reason: impl Into<String>) -> Result<()> {
        self.event(Event::UndoFailed { id, reason: reason.into() })
    }

    /// Writes that `step` failed.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn step_failed(&self, step: Step, reason: impl Into<String>) -> Result<()> {
        self.event(Event::StepFailed { step, reason: reason.into(), cancelled: false })
    }

    /// Writes that `step` was ended from outside, before it could judge what it was about.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn step_cancelled(&self, step: Step, reason: impl Into<String>) -> Result<()> {
        self.event(Event::StepFailed { step, reason: reason.into(), cancelled: true })
    }

    /// Writes that the new driver serves: no undo touches it from here on.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn commit(&self) -> Result<()> {
        self.event(Event::Committed)
    }

    /// Ends the run and moves it to the history.
    ///
    /// # Errors
    /// No open run, or the file cannot be written or moved.
    pub fn close(&self, outcome: Outcome) -> Result<Run> {
        self.event(Event::Closed { outcome })?;
        let run = self.load()?.context("the ledger vanished")?;
        self.retire(&run)?;
        Ok(run)
    }

    /// The run that ended last.
    ///
    /// # Errors
    /// The history cannot be read.
    pub fn last_closed(&self) -> Result<Option<Run>> {
        let Some(path) = self.closed()?.pop() else {
            return Ok(None);
        };
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        run_of(&text, &path).map(Some)
    }

    fn event(&self, event: Event) -> Result<()> {
        self.append(|_| ((), vec![event.clone()]))
    }

    fn append<T>(&self, make: impl Fn(&Run) -> (T, Vec<Event>)) -> Result<T> {
        let path = self.path();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}: is there an open run?", path.display()))?;
        file.lock().with_context(|| format!("lock {}", path.display()))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(|| format!("read {}", path.display()))?;
        let (records, whole) = parse(&text).with_context(|| unreadable(&path))?;
        let run = Run::from_records(&records).with_context(|| unreadable(&path))?;
        // Drops a torn last line, so that the next one starts at the start of a line.
        file.set_len(whole as u64).with_context(|| format!("truncate {}", path.display()))?;
        file.seek(SeekFrom::End(0)).with_context(|| format!("seek {}", path.display()))?;
        let (result, events) = make(&run);
        self.write(&mut file, &run.id, events)?;
        Ok(result)
    }

    fn write(&self, file: &mut File, run: &str, events: Vec<Event>) -> Result<()> {
        let realtime_usec =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64);
        let mut lines = Vec::new();
        for event in events {
            let (run, boot) = (run.to_owned(), self.boot.clone());
            let record = Record { v: VERSION, run, boot, realtime_usec, event };
            serde_json::to_writer(&mut lines, &record).context("encode a line of the ledger")?;
            lines.push(b'\n');
        }
        let path = self.path();
        file.write_all(&lines).with_context(|| format!("write {}", path.display()))?;
        file.sync_data().with_context(|| format!("sync {}", path.display()))
    }

    fn retire(&self, run: &Run) -> Result<()> {
        let to = self.history().join(format!("{:020}-{}.jsonl", run.opened_usec, run.id));
        fs::rename(self.path(), &to).with_context(|| format!("move the ledger to {}", to.display()))?;
        sync_directory(&self.directory)?;
        let closed = self.closed()?;
        for old in closed.iter().take(closed.len().saturating_sub(HISTORY)) {
            fs::remove_file(old).with_context(|| format!("remove {}", old.display()))?;
        }
        Ok(())
    }

    /// Closed runs, oldest first: their names begin with the time.
    fn closed(&self) -> Result<Vec<PathBuf>> {
        let history = self.history();
        let entries = match fs::read_dir(&history) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", history.display())),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("read {}", history.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("sync {}", directory.display()))
}

fn unreadable(path: &Path) -> String {
    format!(
        "{} is not a ledger that this version understands; nothing was changed: finish the run with the version that wrote it, or move the file away to give the run up",
        path.display()
    )
}

fn run_of(text: &[u8], path: &Path) -> Result<Run> {
    parse(text).and_then(|(records, _)| Run::from_records(&records)).with_context(|| unreadable(path))
}

/// The records of `text`, and how many bytes of it are whole lines.
fn parse(text: &[u8]) -> Result<(Vec<Record>, usize)> {
    /// What is looked at first, so that another version is named as such.
    #[derive(Deserialize)]
    struct Head {
        v: u32,
    }
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let mut records = Vec::new();
    for (number, line) in text[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
        let at = || format!("line {}", number + 1);
        let head: Head = serde_json::from_slice(line).with_context(at)?;
        if head.v != VERSION {
            bail!("line {} has format {}, this version writes {VERSION}", number + 1, head.v);
        }
        records.push(serde_json::from_slice(line).with_context(at)?);
    }
    Ok((records, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::State;
    use proptest::prelude::*;

    fn gate() -> Object {
        Object::Gate { path: "/run/modprobe.d/00-nvidia-reload.conf".into() }
    }

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ledger = Ledger::new(directory.path().join("lib"), "boot-1");
        (directory, ledger)
    }

    #[test]
    fn an_act_is_outstanding_until_it_is_given_back() {
        let (_directory, ledger) = ledger();
        ledger.open(Snapshot::default()).expect("opens");
        let id = ledger.intent(Step::RmmodChain, gate()).expect("writes");
        let run = || ledger.read().expect("reads").expect("is open");
        assert_eq!(run().outstanding(Step::RmmodChain).len(), 1);
        ledger.done(id).expect("writes");
        assert_eq!(run().outstanding(Step::RmmodChain)[0].state, State::Done);
        assert!(run().outstanding(Step::UnbindVt).is_empty());
        ledger.undo_failed(id, "no").expect("writes");
        assert_eq!(run().missing().len(), 1);
        ledger.undone(id).expect("writes");
        assert!(run().missing().is_empty());
        let closed = ledger.close(Outcome::RolledBack).expect("closes");
        assert_eq!(closed.outcome, Some(Outcome::RolledBack));
        assert!(ledger.read().expect("reads").is_none());
        assert_eq!(ledger.last_closed().expect("reads").expect("is there").id, closed.id);
    }

    #[test]
    fn a_second_run_is_refused_while_one_is_open() {
        let (_directory, ledger) = ledger();
        ledger.open(Snapshot::default()).expect("opens");
        let error = ledger.open(Snapshot::default()).expect_err("must refuse");
        assert!(error.to_string().contains("still open"), "{error}");
    }

    #[test]
    fn another_format_is_refused_and_left_alone() {
        let (_directory, ledger) = ledger();
        ledger.open(Snapshot::default()).expect("opens");
        let path = ledger.path();
        for odd in [
            "{\"v\":2,\"news\":1}\n",
            "{\"v\":1,\"run\":\"x\",\"boot\":\"b\",\"realtime_usec\":1,\"event\":{\"who\":{}}}\n",
        ] {
            let before = fs::read_to_string(&path).expect("reads");
            fs::write(&path, format!("{before}{odd}")).expect("writes");
            assert!(ledger.read().is_err());
            assert!(ledger.intent(Step::Verify, gate()).is_err());
            assert_eq!(fs::read_to_string(&path).expect("reads"), format!("{before}{odd}"));
            fs::write(&path, before).expect("writes");
        }
    }

    #[test]
    fn the_history_keeps_the_last_runs() {
        let (_directory, ledger) = ledger();
        for _ in 0..HISTORY + 3 {
            ledger.open(Snapshot::default()).expect("opens");
            ledger.close(Outcome::Done).expect("closes");
        }
        assert_eq!(ledger.closed().expect("reads").len(), HISTORY);
    }

    proptest! {
        /// Wherever the power goes, what was synced before is there, and the file can go on.
        #[test]
        fn a_torn_tail_loses_only_the_torn_line(cut in 0usize..2000) {
            let (_directory, ledger) = ledger();
            ledger.open(Snapshot::default()).expect("opens");
            for _ in 0..4 {
                let id = ledger.intent(Step::RmmodChain, gate()).expect("writes");
                ledger.done(id).expect("writes");
            }
            let text = fs::read(ledger.path()).expect("reads");
            let cut = cut.min(text.len());
            fs::write(ledger.path(), &text[..cut]).expect("writes");
            let whole = text[..cut].iter().filter(|byte| **byte == b'\n').count();
            if whole == 0 {
                // Cannot come from a power cut: the first line is linked in whole.
                prop_assert!(ledger.read().is_err());
            } else {
                let run = ledger.read().expect("reads").expect("open");
                prop_assert_eq!(run.acts.len(), whole / 2);
                let id = ledger.intent(Step::UnbindVt, gate()).expect("goes on");
                prop_assert_eq!(id as usize, whole / 2 + 1);
                prop_assert_eq!(ledger.read().expect("reads").expect("open").acts.len(), whole / 2 + 1);
            }
        }
    }
}
