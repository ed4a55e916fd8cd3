//! Built things, kept from run to run. Each lies in a folder of its own, named
//! after all that it was made from; it is built under another name and renamed
//! when it is whole, with a manifest by which it is checked before each use.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::cleanup;
use crate::command::output_of;
use crate::progress::{Work, note};

const MANIFEST: &str = "manifest.json";
/// How many of a kind are kept.
const KEPT: usize = 2;

/// The cache folder.
pub struct Cache {
    root: PathBuf,
    scratch: OnceLock<(PathBuf, File)>,
}

/// Something built and checked.
#[derive(Debug, Clone)]
pub struct Stage {
    dir: PathBuf,
    /// A digest of its content: what is built on it is another thing when it
    /// was built again.
    id: String,
}

/// What a stage is made from; its digest names the folder.
pub struct Key(Sha256);

#[derive(Serialize, Deserialize)]
struct Manifest {
    /// Stages that this one cannot do without (a disk image on another).
    parents: Vec<PathBuf>,
    files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    size: u64,
    modified_ns: i128,
    sha256: String,
}

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
        self.with(&stage.id)
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
    pub fn scratch(&self) -> Result<TempDir> {
        let root = self.scratch_root()?;
        tempfile::tempdir_in(&root).with_context(|| format!("cannot write to {}", root.display()))
    }

    /// The folder of this run of the rig for all that is not to be kept. Its
    /// lock says that the run lives; folders of runs that were killed go now.
    pub fn scratch_root(&self) -> Result<PathBuf> {
        if let Some((dir, _)) = self.scratch.get() {
            return Ok(dir.clone());
        }
        let tmp = self.root.join("tmp");
        let _others_wait = self.lock("tmp", "its scratch folder")?;
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
        Ok(self.scratch.get_or_init(|| (dir, lock)).0.clone())
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
            if !parents.contains(dir) {
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

impl Stage {
    /// The folder itself, with the manifest among the files.
    pub fn folder(&self) -> &Path {
        &self.dir
    }

    /// The file whose name starts or ends like this.
    pub fn file_like(&self, start: &str, end: &str) -> Result<PathBuf> {
        files_under(&self.dir)?
            .into_iter()
            .find(|file| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(start) && name.ends_with(end)
            })
            .with_context(|| format!("{} has no file {start}…{end}", self.dir.display()))
    }

    /// A file of the stage.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A small text of the stage.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().to_owned())
    }
}

/// The stage in `dir`, if it is whole.
fn open_stage(dir: &Path) -> Option<Stage> {
    let mut manifest = read_manifest(dir)?;
    let mut touched = false;
    let mut digest = Sha256::new();
    for entry in &mut manifest.files {
        let path = dir.join(&entry.name);
        let metadata = fs::metadata(&path).ok()?;
        if metadata.len() != entry.size {
            return None;
        }
        // Hashing gigabytes takes long: only where the time says it was
        // written to since.
        if modified_ns(&metadata) != entry.modified_ns {
            if hash_file(&path).ok()? != entry.sha256 {
                return None;
            }
            entry.modified_ns = modified_ns(&metadata);
            touched = true;
        }
        digest.update(&entry.sha256);
    }
    if !manifest.parents.iter().all(|parent| parent.is_dir()) {
        return None;
    }
    if touched {
        save_manifest(dir, &manifest).ok()?;
    } else if let Ok(file) = File::options().append(true).open(dir.join(MANIFEST)) {
        // The time of the last use, for pruning.
        let _ = file.set_modified(std::time::SystemTime::now());
    }
    Some(Stage { dir: dir.to_owned(), id: hex(&digest.finalize()) })
}

fn read_manifest(dir: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()
}

fn write_manifest(dir: &Path, parents: &[&Stage]) -> Result<()> {
    let mut files = Vec::new();
    for path in files_under(dir)? {
        let metadata = fs::metadata(&path)?;
        files.push(Entry {
            name: path.strip_prefix(dir)?.to_str().context("a file name is not UTF-8")?.to_owned(),
            size: metadata.len(),
            modified_ns: modified_ns(&metadata),
            sha256: hash_file(&path)?,
        });
    }
    let parents = parents.iter().map(|parent| parent.dir.clone()).collect();
    save_manifest(dir, &Manifest { parents, files })
}

fn save_manifest(dir: &Path, manifest: &Manifest) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer_pretty(&mut file, manifest)?;
    file.persist(dir.join(MANIFEST))?;
    Ok(())
}

/// All files of a folder, sorted; the file itself where it is one. Links and
/// special files do not belong in a stage or in a key.
pub fn files_under(path: &Path) -> Result<Vec<PathBuf>> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if metadata.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !metadata.is_dir() {
        bail!("{} is neither a file nor a folder", path.display());
    }
    let mut entries: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        files.extend(files_under(&entry)?);
    }
    Ok(files)
}

fn modified_ns(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

/// By coreutils: an unoptimised build of the rig would take minutes for a disk
/// image.
fn hash_file(path: &Path) -> Result<String> {
    let shown = output_of(Command::new("sha256sum").arg("--").arg(path))?;
    // A name with odd characters is escaped, with a backslash in front.
    let digest = shown.trim_start_matches('\\').split(' ').next().unwrap_or_default();
    Ok(digest.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
