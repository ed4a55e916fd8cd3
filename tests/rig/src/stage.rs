// SPDX-License-Identifier: MIT
//! A stage: files that were built once, and a list by which they are checked before each use.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::command::output_of;

/// The list's file.
pub const MANIFEST: &str = "manifest.json";

/// Something built and checked.
#[derive(Debug, Clone)]
pub struct Stage {
    dir: PathBuf,
    /// A digest of its content: what is built on it is another thing when it
    /// was built again.
    id: String,
    /// A shared lock on the folder: no rig takes it away while it is in use.
    _used: Arc<File>,
}

/// The list.
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    /// Stages that this one cannot do without (a disk image on another).
    pub parents: Vec<PathBuf>,
    files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    size: u64,
    modified_ns: i128,
    sha256: String,
}

impl Stage {
    /// For keys of what is built on it.
    pub fn id(&self) -> &str {
        &self.id
    }

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
pub fn open_stage(dir: &Path) -> Option<Stage> {
    // Before the look: what is seen whole stays so.
    let used = File::open(dir).ok()?;
    used.lock_shared().ok()?;
    let mut manifest = read_manifest(dir)?;
    let mut written_to = Vec::new();
    for (at, entry) in manifest.files.iter().enumerate() {
        let metadata = fs::symlink_metadata(dir.join(&entry.name)).ok()?;
        if metadata.len() != entry.size {
            return None;
        }
        // Hashing gigabytes takes long: only where the time says it was
        // written to since.
        if modified_ns(&metadata) != entry.modified_ns {
            written_to.push((at, modified_ns(&metadata)));
        }
    }
    let paths: Vec<PathBuf> = written_to.iter().map(|&(at, _)| dir.join(&manifest.files[at].name)).collect();
    for (&(at, modified_ns), sha256) in written_to.iter().zip(hash_files(&paths).ok()?) {
        let entry = &mut manifest.files[at];
        if entry.sha256 != sha256 {
            return None;
        }
        entry.modified_ns = modified_ns;
    }
    if !manifest.parents.iter().all(|parent| parent.is_dir()) {
        return None;
    }
    if !written_to.is_empty() {
        save_manifest(dir, &manifest).ok()?;
    } else if let Ok(file) = File::options().append(true).open(dir.join(MANIFEST)) {
        // The time of the last use, for pruning.
        let _ = file.set_modified(std::time::SystemTime::now());
    }
    let mut digest = Sha256::new();
    for entry in &manifest.files {
        digest.update(&entry.sha256);
    }
    Some(Stage { dir: dir.to_owned(), id: hex(&digest.finalize()), _used: Arc::new(used) })
}

/// The list of what is in `dir`, if there is one.
pub fn read_manifest(dir: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()
}

/// Writes the list of what is in `dir`.
pub fn write_manifest(dir: &Path, parents: &[&Stage]) -> Result<()> {
    let paths = plain_files_under(dir)?;
    let mut files = Vec::new();
    for (path, sha256) in paths.iter().zip(hash_files(&paths)?) {
        let metadata = fs::metadata(path)?;
        files.push(Entry {
            name: path.strip_prefix(dir)?.to_str().context("a file name is not UTF-8")?.to_owned(),
            size: metadata.len(),
            modified_ns: modified_ns(&metadata),
            sha256,
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

/// The files of a stage, sorted. What else a tree of Debian's has, links and special files, is not
/// checked.
fn plain_files_under(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut entries: Vec<(fs::FileType, PathBuf)> = fs::read_dir(dir)?
        .map(|entry| entry.and_then(|entry| Ok((entry.file_type()?, entry.path()))))
        .collect::<std::io::Result<_>>()?;
    entries.sort_by(|(_, one), (_, other)| one.cmp(other));
    let mut files = Vec::new();
    for (kind, path) in entries {
        if kind.is_dir() {
            files.extend(plain_files_under(&path)?);
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// All files of a folder, sorted; the file itself where it is one. Links and
/// special files do not belong in a key.
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
fn hash_files(paths: &[PathBuf]) -> Result<Vec<String>> {
    let mut digests = Vec::new();
    // As many as a command line takes.
    for some in paths.chunks(500) {
        // A line ends with a zero byte, and no name in it is escaped.
        let shown = output_of(Command::new("sha256sum").args(["--zero", "--"]).args(some))?;
        digests.extend(shown.split_terminator('\0').map(|line| line[..line.len().min(64)].to_owned()));
    }
    Ok(digests)
}

/// A digest as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
