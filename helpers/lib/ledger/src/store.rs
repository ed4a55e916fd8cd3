// SPDX-License-Identifier: MIT
//! The file: locked by the writer, synced before the act, whole again after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use files::{check_owner, lock};
use rustix::fs::OFlags;

use crate::intent::Intent;
use crate::object::Object;
use crate::record::{Event, Outcome, Record, Run, VERSION};
use crate::snapshot::Snapshot;
use crate::step::Step;
use crate::tally::Tally;
use crate::{retire, room};

/// Where the ledger lives on a machine.
pub const DIRECTORY: &str = "/var/lib/nvidia-reload";

/// Who writes holds it for as long as one line takes.
const LOCK_TIME: Duration = Duration::from_secs(30);

/// The ledger of a machine.
///
/// Holds no lock between calls: each line is written under a lock, so a helper that is stuck in the
/// kernel cannot keep the one that undoes its work from writing.
#[derive(Debug, Clone)]
pub struct Ledger {
    directory: PathBuf,
    boot: String,
    known: Arc<Mutex<Option<Known>>>,
}

/// What was read before, of which file.
#[derive(Debug)]
struct Known {
    file: (u64, u64),
    tally: Tally,
}

impl Ledger {
    /// The ledger in `directory`, in the boot whose id is `boot`.
    pub fn new(directory: impl Into<PathBuf>, boot: impl Into<String>) -> Self {
        Self { directory: directory.into(), boot: boot.into(), known: Arc::default() }
    }

    /// The kernel's id of this boot.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("ledger.jsonl")
    }

    pub(crate) fn history(&self) -> PathBuf {
        self.directory.join("history")
    }

    pub(crate) fn lock(&self) -> Result<File> {
        Ok(lock(&self.directory.join("ledger.lock"), LOCK_TIME, |_| ())?)
    }

    /// Begins a run and returns its id.
    ///
    /// # Errors
    /// There is an open run already, the file cannot be written, or there is no room for a run on the disk.
    pub fn open(&self, snapshot: Snapshot) -> Result<String> {
        for (directory, mode) in [(&self.directory, 0o755), (&self.history(), 0o700)] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(directory)
                .with_context(|| format!("create {}", directory.display()))?;
            check_owner(directory)?;
        }
        let _lock = self.lock()?;
        if let Some(run) = self.load()? {
            if run.outcome.is_none() {
                bail!("run {} is still open: `nvidia-reload recover` ends it", run.id);
            }
            // The power went between the last line and the move.
            self.retire(&run)?;
        }
        let run = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .context("read /proc/sys/kernel/random/uuid")?
            .trim()
            .to_owned();
        // Written aside and then named: a reader sees no ledger or one with its first line. What a power
        // cut left under that name may be a run in the history, too: it is never written to.
        let new = self.directory.join("ledger.jsonl.new");
        files::remove(&new).with_context(|| format!("remove {}", new.display()))?;
        // There are command lines in it: only root may read them.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .with_context(|| format!("create {}", new.display()))?;
        let line = self.lines(&run, vec![Event::Opened { snapshot: Box::new(snapshot) }])?;
        room::reserve(&file, 0, line.len(), 0)
            .and_then(|()| file.write_all_at(&line, 0))
            .and_then(|()| file.sync_all())
            .with_context(|| format!("write {}", new.display()))?;
        let path = self.path();
        fs::rename(&new, &path).with_context(|| format!("create {}", path.display()))?;
        sync_directory(&self.directory)?;
        Ok(run)
    }

    /// The open run, if there is one. Lines torn by a power cut are left out: what they announced
    /// was never done, since the act comes after the sync. Damaged ones are named in the run.
    ///
    /// # Errors
    /// The file cannot be read, a later version wrote it, or no line of it can be understood; or others
    /// than root could have written it.
    pub fn read(&self) -> Result<Option<Run>> {
        let mut open = self.load()?.filter(|run| run.outcome.is_none());
        if let Some(run) = &mut open {
            run.continues_in(&self.boot);
        }
        Ok(open)
    }

    fn load(&self) -> Result<Option<Run>> {
        let path = self.path();
        match OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path) {
            Ok(file) => self.with_tally(&file, |tally| tally.run()).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// What the lines of `file` add up to. Only those that are new since the last time are read.
    fn with_tally<T>(&self, file: &File, act: impl FnOnce(&Tally) -> Result<T>) -> Result<T> {
        let path = self.path();
        let data = file.metadata().with_context(|| format!("look at {}", path.display()))?;
        let id = (data.dev(), data.ino());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = known.take().filter(|known| known.file == id && known.tally.bytes() <= data.size());
        let mut new = match fits {
            Some(known) => known,
            None => {
                check_owner(&path)?;
                Known { file: id, tally: Tally::new(&path) }
            }
        };
        let mut text = Vec::new();
        let mut rest = file;
        rest.seek(SeekFrom::Start(new.tally.bytes()))
            .and_then(|_| rest.read_to_end(&mut text))
            .with_context(|| format!("read {}", path.display()))?;
        new.tally.add(&text).with_context(|| {
            format!("{}: nothing was changed; finish the run with the version that wrote it", path.display())
        })?;
        let result = act(&new.tally);
        *known = Some(new);
        result
    }

    /// Writes that `step` is about to act on `object`. [`Ledger::act`] does the act as well, and writes what became
    /// of it.
    ///
    /// # Errors
    /// No open run, or the line is not safely on disk, or there is no room for those that will follow: then
    /// the act must not be done.
    pub fn intent(&self, step: Step, object: Object) -> Result<Intent<'_>> {
        let id = self.append(|tally| (tally.next_id(), vec![intent(tally.next_id(), step, object)]))?;
        Ok(Intent::new(self, id))
    }

    /// The same for any number of objects, in the time of one: they are in the ledger together before the
    /// first is touched.
    ///
    /// # Errors
    /// As those of [`Ledger::intent`]: then none of the acts may be done.
    pub fn intents(&self, step: Step, objects: Vec<Object>) -> Result<Vec<u64>> {
        self.append(|tally| {
            let ids: Vec<u64> = (tally.next_id()..).take(objects.len()).collect();
            let events = ids.iter().zip(objects).map(|(id, object)| intent(*id, step, object)).collect();
            (ids, events)
        })
    }

    /// Writes that these acts did not happen, or took what cannot be restored (`lost`), with the reason.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn ended(&self, failed: &[u64], lost: &[u64], why_failed: &str, why_lost: &str) -> Result<()> {
        let failed = failed.iter().map(|id| Event::Failed { id: *id, reason: why_failed.to_owned() });
        let lost = lost.iter().map(|id| Event::Lost { id: *id, reason: why_lost.to_owned() });
        self.append(|_| ((), failed.chain(lost).collect()))
    }

    /// Writes that what act `id` took was restored.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn undone(&self, id: u64) -> Result<()> {
        self.event(Event::Undone { id })
    }

    /// Writes that what act `id` took cannot be restored.
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn lost(&self, id: u64, reason: impl Into<String>) -> Result<()> {
        self.event(Event::Lost { id, reason: reason.into() })
    }

    /// Writes that restoring what act `id` took failed this time.
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

    /// Writes that `step` did its part, which it began at `began_usec` (microseconds since 1970).
    ///
    /// # Errors
    /// No open run, or the file cannot be written.
    pub fn step_done(&self, step: Step, began_usec: u64) -> Result<()> {
        self.event(Event::StepDone { step, began_usec })
    }

    /// Writes that the new driver works: no undo touches it from here on.
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
        // One lock for both: between the line and the move another process would move it, and this one miss it.
        let _lock = self.lock()?;
        self.append_locked(|_| ((), vec![Event::Closed { outcome }]))?;
        let run = self.load()?.context("the ledger vanished")?;
        self.retire(&run)?;
        Ok(run)
    }

    /// Moves the ledger of a run that is over to the history: the power or a signal came between its last line
    /// and the move. An open run is left as it is.
    ///
    /// # Errors
    /// The file cannot be read or moved.
    pub fn sweep(&self) -> Result<()> {
        let closed = || Ok::<_, anyhow::Error>(self.load()?.filter(|run| run.outcome.is_some()));
        if closed()?.is_none() {
            return Ok(());
        }
        let _lock = self.lock()?;
        closed()?.map_or(Ok(()), |run| self.retire(&run))
    }

    /// The run that ended last.
    ///
    /// # Errors
    /// The history cannot be read.
    pub fn last_closed(&self) -> Result<Option<Run>> {
        // The power may have gone between the last line and the move.
        if let Some(run) = self.load()?.filter(|run| run.outcome.is_some()) {
            return Ok(Some(run));
        }
        let Some(path) = retire::closed(&self.history())?.pop() else {
            return Ok(None);
        };
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let mut tally = Tally::new(&path);
        tally.add(&text).with_context(|| path.display().to_string())?;
        tally.run().map(Some)
    }

    pub(crate) fn event(&self, event: Event) -> Result<()> {
        self.append(|_| ((), vec![event]))
    }

    fn append<T>(&self, make: impl FnOnce(&Tally) -> (T, Vec<Event>)) -> Result<T> {
        let _lock = self.lock()?;
        self.append_locked(make)
    }

    /// The same, for a caller that has the lock.
    fn append_locked<T>(&self, make: impl FnOnce(&Tally) -> (T, Vec<Event>)) -> Result<T> {
        let path = self.path();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .with_context(|| format!("open {}: is there an open run?", path.display()))?;
        let (result, mut lines, end, acts, must_stay) = self.with_tally(&file, |tally| {
            let run = tally.id()?;
            if tally.is_closed() {
                bail!("{} is of a run that is over", path.display());
            }
            let (result, events) = make(tally);
            let announced = events.iter().filter(|event| matches!(event, Event::Intent { .. })).count();
            let acts = (announced > 0).then_some(tally.acts() + announced);
            // An act whose end a power cut takes away is open, and its undo looks whether it was done.
            let must_stay =
                !events.iter().all(|event| matches!(event, Event::Done { .. } | Event::StepDone { .. }));
            Ok((result, self.lines(run, events)?, tally.bytes(), acts, must_stay))
        })?;
        let mut write = || -> std::io::Result<()> {
            if let Some(acts) = acts {
                room::reserve(&file, end, lines.len(), acts)?;
            }
            // Over a torn last line, and as long as that: to cut it off would free what is reserved.
            let torn = usize::try_from(file.metadata()?.size().saturating_sub(end)).unwrap_or_default();
            if !lines.is_empty() && lines.len() < torn {
                lines.pop();
                lines.resize(torn, b' ');
                lines.push(b'\n');
            }
            file.write_all_at(&lines, end)?;
            if must_stay { file.sync_data() } else { Ok(()) }
        };
        write().with_context(|| format!("write {}", path.display()))?;
        Ok(result)
    }

    fn lines(&self, run: &str, events: Vec<Event>) -> Result<Vec<u8>> {
        let realtime_usec =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64);
        let mut lines = Vec::new();
        for mut event in events {
            room::bound(&mut event);
            let (run, boot) = (run.to_owned(), self.boot.clone());
            let record = Record { v: VERSION, run, boot, realtime_usec, event };
            serde_json::to_writer(&mut lines, &record).context("encode a line of the ledger")?;
            lines.push(b'\n');
        }
        Ok(lines)
    }

    fn retire(&self, run: &Run) -> Result<()> {
        let to = self.history().join(retire::name(run.opened_usec, &run.id));
        retire::retire(&self.path(), &to)?;
        sync_directory(&self.directory)?;
        retire::prune(&self.history())
    }
}

fn intent(id: u64, step: Step, object: Object) -> Event {
    Event::Intent { id, step, object }
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("sync {}", directory.display()))
}

#[cfg(test)]
mod tests;
