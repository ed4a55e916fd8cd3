//! The file: locked by whoever writes, synced before the act, whole again after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use files::{check_owner, lock};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

use crate::object::{Object, Snapshot, Step};
use crate::record::{Event, Outcome, Record, Run, VERSION};
use crate::retire;
use crate::tally::Tally;

/// Where the ledger lives on a machine.
pub const DIRECTORY: &str = "/var/lib/nvidia-reload";

/// Who writes holds it for as long as one line takes.
const LOCK_TIME: Duration = Duration::from_secs(30);

/// The room that an open run has for lines that must not fail, whatever else fills the disk: those that say
/// what was done and restored, and how the run ended.
const RESERVE: u64 = 256 << 10;

/// The same for each act that was announced.
const RESERVE_ACT: u64 = 1 << 10;

/// The longest text of others in a line, in bytes: a command line, what an engine answered.
const TEXT: usize = 4096;
const COMMAND: usize = 512;

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

    fn path(&self) -> PathBuf {
        self.directory.join("ledger.jsonl")
    }

    fn history(&self) -> PathBuf {
        self.directory.join("history")
    }

    fn lock(&self) -> Result<File> {
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
                bail!("run {} is still open: `nvidia-reload rollback` ends it", run.id);
            }
            // The power went between the last line and the move.
            self.retire(&run)?;
        }
        let run = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .context("read /proc/sys/kernel/random/uuid")?
            .trim()
            .to_owned();
        // Written aside and then named: whoever reads sees no ledger or one with its first line. What a power
        // cut left under that name may be a run in the history, too: it is never written to.
        let new = self.directory.join("ledger.jsonl.new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", new.display()));
            }
            _ => {}
        }
        // The command lines in it are nobody else's business: root only.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .with_context(|| format!("create {}", new.display()))?;
        let line = self.line(&run, Event::Opened { snapshot: Box::new(snapshot) })?;
        reserve(&file, 0, RESERVE + line.len() as u64)
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
        Ok(self.load()?.filter(|run| run.outcome.is_none()))
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

    /// Writes that `step` is about to act on `object`; returns the act's id.
    ///
    /// # Errors
    /// No open run, or the line is not safely on disk, or there is no room for those that will follow: then
    /// the act must not be done.
    pub fn intent(&self, step: Step, object: Object) -> Result<u64> {
        let object = match object {
            Object::Process(mut process) => {
                cut(&mut process.command, COMMAND);
                Object::Process(process)
            }
            object => object,
        };
        self.append(|tally| {
            let id = tally.next_id();
            (id, Event::Intent { id, step, object })
        })
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
        let _lock = self.lock()?;
        let run = self.load()?.context("the ledger vanished")?;
        self.retire(&run)?;
        Ok(run)
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

    fn event(&self, mut event: Event) -> Result<()> {
        if let Event::Failed { reason, .. }
        | Event::Lost { reason, .. }
        | Event::UndoFailed { reason, .. }
        | Event::StepFailed { reason, .. } = &mut event
        {
            cut(reason, TEXT);
        }
        self.append(|_| ((), event))
    }

    fn append<T>(&self, make: impl FnOnce(&Tally) -> (T, Event)) -> Result<T> {
        let path = self.path();
        let _lock = self.lock()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .with_context(|| format!("open {}: is there an open run?", path.display()))?;
        let (result, line, end, room) = self.with_tally(&file, |tally| {
            // A file without one good line is no ledger.
            tally.run_id().map_or_else(|| tally.run().map(drop), |_| Ok(()))?;
            if tally.is_closed() {
                bail!("{} is of a run that is over", path.display());
            }
            let (result, event) = make(tally);
            let room =
                matches!(event, Event::Intent { .. }).then_some(RESERVE + RESERVE_ACT * tally.acts() as u64);
            Ok((result, self.line(tally.run_id().unwrap_or_default(), event)?, tally.bytes(), room))
        })?;
        let write = || -> std::io::Result<()> {
            let size = file.metadata()?.size();
            if let Some(room) = room {
                reserve(&file, end, room + line.len() as u64)?;
            }
            // Over a torn last line, and as long as that: to cut it off would free what is reserved.
            let mut line = line;
            let torn = usize::try_from(size.saturating_sub(end)).unwrap_or_default();
            if line.len() < torn {
                line.pop();
                line.resize(torn, b' ');
                line.push(b'\n');
            }
            file.write_all_at(&line, end)?;
            file.sync_data()
        };
        write().with_context(|| format!("write {}", path.display()))?;
        Ok(result)
    }

    fn line(&self, run: &str, event: Event) -> Result<Vec<u8>> {
        let record = Record {
            v: VERSION,
            run: run.to_owned(),
            boot: self.boot.clone(),
            realtime_usec: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |age| age.as_micros() as u64),
            event,
        };
        let mut line = serde_json::to_vec(&record).context("encode a line of the ledger")?;
        line.push(b'\n');
        Ok(line)
    }

    fn retire(&self, run: &Run) -> Result<()> {
        let to = self.history().join(format!("{:020}-{}.jsonl", run.opened_usec, run.id));
        retire::retire(&self.path(), &to)?;
        sync_directory(&self.directory)?;
        retire::prune(&self.history())
    }
}

/// Sets blocks aside for `length` bytes from `from` on, without making the file longer. Where a file system
/// cannot, a run has to do with what there is.
fn reserve(file: &File, from: u64, length: u64) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, length) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Cuts a text to `bytes`, and shows that it was.
fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("sync {}", directory.display()))
}

#[cfg(test)]
mod tests;
