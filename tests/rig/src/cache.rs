// SPDX-License-Identifier: MIT
//! Built things, kept from run to run. Each lies in a folder of its own, named
//! after all that it was made from; it is built under another name and renamed
//! when it is whole, with a manifest by which it is checked before each use.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::cleanup;
use crate::progress::{Work, note};
use crate::stage::{MANIFEST, hex, open_stage, read_manifest, write_manifest};
pub use crate::stage::{Stage, files_under};

/// How many of a kind are kept.
const KEPT: usize = 2;

/// The cache folder.
pub struct Cache {
    root: PathBuf,
    scratch: OnceLock<Arc<Scratch>>,
}

/// The folder of one run of the rig; its lock says that the run lives.
struct Scratch {
    dir: PathBuf,
    _lock: File,
}

/// A folder that is gone when dropped. Until then no other rig takes its run for dead, whatever
/// becomes of the cache that it is of: a machine runs for hours, and has all its files here.
pub struct Folder {
    dir: TempDir,
    run: Arc<Scratch>,
}

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Kept when dropped.
    fn keep(self) -> PathBuf {
        let _lives_until_here = self.run;
        self.dir.keep()
    }
}

/// What a stage is made from; its digest names the folder.
pub struct Key(Sha256);

impl Key {
    /// Starts a key; `recipe` names what is done, with a number to count up
    /// where the code that does it changes.
    pub fn new(recipe: &str) -> Self {
        Key(Sha256::new()).with(recipe)
    }

    /// Adds a text.
    pub fn with(mut self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        // With its length, so that no two lists of texts look alike.
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds a stage.
    pub fn on(self, stage: &Stage) -> Self {
        self.with(stage.id())
    }

    /// Adds a file or all files of a folder, with their names and whether
    /// they are executable.
    pub fn with_files(mut self, path: &Path) -> Result<Self> {
        for file in files_under(path)? {
            let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
            let mode = fs::symlink_metadata(&file)?.mode() & 0o111;
            let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            self = self.with(name).with([u8::from(mode != 0)]).with(content);
        }
        Ok(self)
    }

    /// The digest of what was added.
    pub fn digest(self) -> String {
        hex(&self.0.finalize())[..16].to_owned()
    }
}

impl Cache {
    /// Opens the cache, making the folder when there is none.
    pub fn open() -> Result<Self> {
        let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| Path::new(v).is_absolute()) {
            Some(base) => PathBuf::from(base),
            None => {
                PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
                    .join(".cache")
            }
        };
        Cache::open_in(&base)
    }

    pub(crate) fn open_in(base: &Path) -> Result<Self> {
        let cache = Cache { root: base.join("nvidia-reload-rig"), scratch: OnceLock::new() };
        for folder in ["locks", "logs", "tmp"] {
            let folder = cache.root.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(cache)
    }

    /// The folder itself, for what is no stage.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A new folder in the same file system, gone when dropped.
    pub fn scratch(&self) -> Result<Folder> {
        let run = self.this_run()?.clone();
        let dir = tempfile::tempdir_in(&run.dir)
            .with_context(|| format!("cannot write to {}", run.dir.display()))?;
        Ok(Folder { dir, run })
    }

    /// The folder of this run of the rig for all that is not to be kept.
    pub fn scratch_root(&self) -> Result<&Path> {
        Ok(&self.this_run()?.dir)
    }

    /// Makes it, and removes those of runs that were killed.
    fn this_run(&self) -> Result<&Arc<Scratch>> {
        if let Some(run) = self.scratch.get() {
            return Ok(run);
        }
        let tmp = self.root.join("tmp");
        let _others_wait = self.lock("tmp", "its scratch folder")?;
        // Another thread of this rig may have been quicker.
        if let Some(run) = self.scratch.get() {
            return Ok(run);
        }
        for entry in fs::read_dir(&tmp)? {
            let dir = entry?.path();
            let dead = File::open(dir.join("lock")).map_or(true, |lock| lock.try_lock().is_ok());
            if dead {
                fs::remove_dir_all(&dir)?;
            }
        }
        let dir = tempfile::tempdir_in(&tmp)?.keep();
        cleanup::folder(dir.clone());
        let lock = File::create(dir.join("lock"))?;
        lock.lock()?;
        Ok(self.scratch.get_or_init(|| Arc::new(Scratch { dir, _lock: lock })))
    }

    /// Where the log of a stage's last build lies.
    pub fn log(&self, kind: &str) -> PathBuf {
        self.root.join("logs").join(format!("{kind}.log"))
    }

    /// The stage of this kind and key: the one that is there when it is whole,
    /// or else a new one, which `build` makes in the folder it is given.
    /// `what` reads on after "rig: building ".
    pub fn get(
        &self,
        kind: &str,
        what: &str,
        key: Key,
        parents: &[&Stage],
        build: impl FnOnce(&Path, &Work) -> Result<()>,
    ) -> Result<Stage> {
        let dir = self.root.join(format!("{kind}-{}", key.digest()));
        if let Some(stage) = open_stage(&dir) {
            return Ok(stage);
        }
        let _lock = self.lock(kind, what)?;
        // Another rig may have built it in the meantime.
        if let Some(stage) = open_stage(&dir) {
            return Ok(stage);
        }
        if dir.exists() {
            note(format!("{} is not whole: building it again", dir.display()));
            fs::remove_dir_all(&dir)?;
        }
        let log = self.log(kind);
        let _ = fs::remove_file(&log);
        let building = self.scratch()?;
        let work = Work::start(format!("building {what}"));
        build(building.path(), &work).with_context(|| format!("cannot build {what}"))?;
        write_manifest(building.path(), parents)?;
        fs::rename(building.keep(), &dir).with_context(|| format!("cannot make {}", dir.display()))?;
        work.done();
        self.prune(kind)?;
        open_stage(&dir).with_context(|| format!("{} was built and is not whole", dir.display()))
    }

    fn lock(&self, kind: &str, what: &str) -> Result<File> {
        let path = self.root.join("locks").join(kind);
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_err() {
            note(format!("another rig is building {what}: waiting for it"));
            file.lock()?;
        }
        Ok(file)
    }

    /// Keeps the last used ones of this kind, and what anything stands on.
    fn prune(&self, kind: &str) -> Result<()> {
        let folders = self.folders()?;
        let parents: Vec<PathBuf> = folders
            .iter()
            .filter_map(|name| read_manifest(&self.root.join(name)))
            .flat_map(|manifest| manifest.parents)
            .collect();
        let mut ours: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
        for name in folders {
            // KIND-DIGEST, and a kind may be the start of another's name.
            if name.rsplit_once('-').is_some_and(|(its_kind, _)| its_kind == kind) {
                let dir = self.root.join(name);
                if let Ok(used) = fs::metadata(dir.join(MANIFEST)).and_then(|m| m.modified()) {
                    ours.push((used, dir));
                }
            }
        }
        ours.sort();
        for (_, dir) in ours.iter().rev().skip(KEPT) {
            // One that a rig has open stays: its machine runs on it.
            let folder = File::open(dir)?;
            if !parents.contains(dir) && folder.try_lock().is_ok() {
                fs::remove_dir_all(dir)?;
            }
        }
        Ok(())
    }

    fn folders(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.root)?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_in(base: &TempDir) -> Cache {
        Cache::open_in(base.path()).expect("a cache")
    }

    fn stage(cache: &Cache, version: usize) -> Stage {
        let key = Key::new("test").with(version.to_string());
        cache
            .get("test", "a test", key, &[], |dir, _| Ok(fs::write(dir.join("file"), version.to_string())?))
            .expect("a stage")
    }

    #[test]
    fn a_second_rig_leaves_the_folders_of_the_first_alone() {
        let base = tempfile::tempdir().expect("a folder");
        let first = open_in(&base);
        let of_a_machine = first.scratch().expect("a scratch folder");
        // As `cargo rig shell` does it: the machine is all that is left.
        drop(first);
        let second = open_in(&base);
        second.scratch().expect("a scratch folder");
        assert!(of_a_machine.path().is_dir());
        // And when it has ended, its run's folder goes. (At one of the next times: a process that another
        // test starts has the lock as well until its program runs.)
        let run = of_a_machine.run.dir.clone();
        drop(of_a_machine);
        let gone = (0..50).any(|_| {
            open_in(&base).scratch().expect("a scratch folder");
            !run.exists()
        });
        assert!(gone);
    }

    #[test]
    fn a_second_rig_leaves_the_stages_that_the_first_uses_alone() {
        let base = tempfile::tempdir().expect("a folder");
        let in_use = stage(&open_in(&base), 0);
        let not_in_use = stage(&open_in(&base), 1).folder().to_owned();
        let gone = (2..50).any(|version| {
            stage(&open_in(&base), version);
            !not_in_use.exists()
        });
        assert!(gone && in_use.folder().is_dir());
    }

    #[test]
    fn a_stage_that_was_changed_is_built_again() {
        let base = tempfile::tempdir().expect("a folder");
        let file = stage(&open_in(&base), 0).file("file");
        std::os::unix::fs::symlink("nowhere", file.with_file_name("link")).expect("a link");
        fs::write(&file, "1").expect("written");
        assert_eq!(fs::read_to_string(stage(&open_in(&base), 0).file("file")).expect("read"), "0");
    }
}
