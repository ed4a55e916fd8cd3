//! Modules kept for the way back.
//!
//! A package upgrade replaces the files of the driver that is loaded. Should the new one not load
//! or not verify, the old one can serve again only if somebody kept its files: so whenever the
//! loaded driver and the one on disk are the same, the files are copied aside.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use step::Root;

use crate::DRIVER;
use crate::disk::{Disk, File};
use crate::loaded::Loaded;

/// Below the ledger's directory.
const DIRECTORY: &str = "/var/lib/nvidia-reload/slots";

/// NVML's library, which lies beside the modules of its version.
const LIBRARY: &str = "libnvidia-ml.so.";

/// How many are kept.
const KEPT: usize = 2;

/// The modules of one version of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The driver's version.
    pub version: String,
    /// Its module files.
    pub files: Vec<File>,
    /// When it was made or last found up to date.
    pub used: SystemTime,
    directory: PathBuf,
}

impl Slot {
    /// The file that is the very module `loaded` was.
    pub fn find(&self, loaded: &ledger::Module) -> Option<&File> {
        self.files.iter().find(|file| file.is(loaded))
    }
}

/// All slots, newest first. One that cannot be read is left out: it is no way back.
///
/// # Errors
/// The directory cannot be read.
pub fn slots(root: &Root, disk: &Disk) -> Result<Vec<Slot>> {
    let directory = root.path(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            continue;
        }
        match slot(&path, disk) {
            Ok(slot) => found.push(slot),
            Err(error) => eprintln!("{} is no way back: {error:#}", path.display()),
        }
    }
    found.sort_by_key(|slot| std::cmp::Reverse(slot.used));
    Ok(found)
}

fn slot(directory: &Path, disk: &Disk) -> Result<Slot> {
    let used = fs::metadata(directory)?.modified()?;
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(LIBRARY) {
            files.push(disk.inspect(&entry.path())?);
        }
    }
    let version = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Slot { version, files, used, directory: directory.to_owned() })
}

/// Where NVML's library of `version` is kept, if it is: only a library of the loaded driver's version
/// can tell what is set on the GPUs, and an upgrade takes that away as well.
pub fn kept_library(root: &Root, version: &str) -> PathBuf {
    root.path(DIRECTORY).join(version).join(format!("{LIBRARY}{version}"))
}

/// Keeps the files of the modules in `chain`, which are loaded, if the disk still has them all; and
/// NVML's library, if it is of their version. Returns the version that is kept, or none when the disk
/// has others.
///
/// # Errors
/// A file cannot be copied.
pub fn keep(
    root: &Root,
    disk: &Disk,
    chain: &[Loaded],
    library: Option<(&Path, &str)>,
) -> Result<Option<String>> {
    let mut files = Vec::new();
    for loaded in chain {
        match disk.find(&loaded.module.name)? {
            Some(file) if file.is(&loaded.module) => files.push(file),
            _ => return Ok(None),
        }
    }
    let Some(driver) = files.iter().find(|file| file.name == DRIVER) else { return Ok(None) };
    let Some(version) = driver.version.clone().filter(|version| !version.contains('/')) else {
        return Ok(None);
    };
    let directory = root.path(DIRECTORY);
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    // The unit at boot and verify may both come this way.
    let lock = fs::File::open(&directory).with_context(|| format!("open {}", directory.display()))?;
    lock.lock().with_context(|| format!("lock {}", directory.display()))?;
    let place = directory.join(&version);
    // One that cannot be read is made anew.
    let library = library.filter(|(_, of)| *of == version).map(|(path, _)| path);
    let existing = slot(&place, disk);
    let whole = |slot: Slot| files.iter().all(|file| slot.files.iter().any(|kept| kept.is_copy_of(file)));
    if existing.is_ok_and(whole) && (library.is_none() || kept_library(root, &version).exists()) {
        fs::File::open(&place)
            .and_then(|place| place.set_modified(SystemTime::now()))
            .with_context(|| format!("touch {}", place.display()))?;
        return Ok(Some(version));
    }
    // Modules of this driver that are not loaded now may be by the time they are needed; one that is
    // installed later is kept when it is loaded.
    for file in disk.files()? {
        if file.version.as_deref() == Some(&version) && files.iter().all(|known| known.name != file.name) {
            files.push(file);
        }
    }
    let new = directory.join(format!("{version}.new"));
    remove(&new)?;
    fs::create_dir_all(&new).with_context(|| format!("create {}", new.display()))?;
    for file in &files {
        let suffix = file.path.file_name().unwrap_or_default().to_string_lossy();
        let suffix = suffix.find(".ko").map_or(".ko", |at| &suffix[at..]);
        // Named for the module: the options of that name are those that count.
        let to = new.join(format!("{}{suffix}", file.name));
        copy(&file.path, &to)?;
    }
    if let Some(library) = library {
        copy(library, &new.join(format!("{LIBRARY}{version}")))?;
    }
    remove(&place)?;
    fs::rename(&new, &place).with_context(|| format!("create {}", place.display()))?;
    for old in slots(root, disk)?.into_iter().skip(KEPT) {
        remove(&old.directory)?;
    }
    Ok(Some(version))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .and_then(|_| fs::File::open(to)?.sync_all())
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", directory.display())),
    }
}
