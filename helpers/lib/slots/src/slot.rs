// SPDX-License-Identifier: MIT
//! The slots that there are, and whether one is whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use files::{OwnerError, Untrusted, check_owner};
use modules::File;
use step::Root;

use crate::manifest::{self, Manifest, SavedFile};
use crate::room::{self, Short};
use crate::{DIRECTORY, attributes, store};

/// Between the driver and the kernel in a slot's name.
pub(crate) const FOR: char = '@';

/// NVML's library, without its version.
const LIBRARY: &str = "libnvidia-ml.so.";

/// A driver that is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// What it says of itself.
    pub manifest: Manifest,
    /// When it was made or last found up to date.
    pub used: SystemTime,
    pub(crate) directory: PathBuf,
}

/// A slot whose content is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The version that it is named for.
    pub version: String,
    /// What is wrong with it.
    pub reason: String,
    pub(crate) directory: PathBuf,
}

impl Slot {
    /// The saved file of the very module that `loaded` was, with the options that it had; none where the
    /// slot is for another kernel, which takes no other's modules.
    pub fn find(&self, loaded: &ledger::Module) -> Option<File> {
        self.has(loaded).filter(|_| self.misfit().is_none())
    }

    /// The same, whatever kernel it is for.
    pub fn has(&self, loaded: &ledger::Module) -> Option<File> {
        self.regular().filter_map(|file| self.module(file)).find(|file| file.is(loaded))
    }

    /// The saved module `name`, whatever kernel it is for.
    pub fn named(&self, name: &str) -> Option<File> {
        self.regular().filter_map(|file| self.module(file)).find(|file| file.name == name)
    }

    /// Why its modules are none for the kernel that runs; nothing where they are.
    pub fn misfit(&self) -> Option<String> {
        let Manifest { version, kernel, .. } = &self.manifest;
        match running_kernel() {
            Ok(running) if running == *kernel => None,
            Ok(running) => Some(format!(
                "the slot of driver {version} is for the kernel {kernel}, but {running} is running"
            )),
            Err(error) => Some(format!("{error:#}")),
        }
    }

    fn regular(&self) -> impl Iterator<Item = &SavedFile> {
        self.manifest.regular()
    }

    fn module(&self, file: &SavedFile) -> Option<File> {
        let module = file.module.as_ref()?;
        Some(File {
            name: module.name.clone(),
            alias: module.name.clone(),
            path: self.directory.join(file.stored_as()),
            version: module.version.clone(),
            srcversion: module.srcversion.clone(),
            vermagic: module.vermagic.clone(),
            options: module.options.clone(),
        })
    }

    /// What is wrong with the saved modules, file by file.
    pub fn corrupt_modules(&self) -> Vec<String> {
        self.problems(|file| file.module.is_some())
    }

    /// What is wrong with the saved files, file by file: every one is read.
    pub fn corrupt_files(&self) -> Vec<String> {
        self.problems(|_| true)
    }

    fn problems(&self, wanted: impl Fn(&SavedFile) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        for file in self.regular().filter(|file| wanted(file)) {
            let path = self.directory.join(file.stored_as());
            // Else it could be another one by the time it is used.
            let checked = check_owner(&path).map_err(Into::into).and_then(|()| store::checksum(&path));
            match checked {
                Ok(sum) if sum == file.sha256 => {}
                Ok(_) => found.push(format!("{}: the checksum differs", path.display())),
                Err(error) => found.push(format!("{error:#}")),
            }
        }
        found
    }
}

/// The release of the kernel that runs.
pub(crate) fn running_kernel() -> Result<String> {
    let name = nix::sys::utsname::uname().context("ask the kernel for its release")?;
    Ok(name.release().to_string_lossy().into_owned())
}

/// Where the slot of driver `version` for the kernel that runs is, or is to be. The first has the driver's name
/// alone; one for another kernel, which shares the driver's other files with it, has the kernel's too.
///
/// # Errors
/// The kernel does not tell its release.
pub(crate) fn place(root: &Root, version: &str) -> Result<PathBuf> {
    let kernel = running_kernel()?;
    let plain = root.path(DIRECTORY).join(version);
    let is_other = slot(&plain).is_ok_and(|slot| slot.manifest.kernel != kernel);
    Ok(if is_other { root.path(DIRECTORY).join(format!("{version}{FOR}{kernel}")) } else { plain })
}

/// The slots that can be read, those for the running kernel first and of these the newest, and those that cannot.
///
/// # Errors
/// The directory cannot be read.
pub fn all(root: &Root) -> Result<(Vec<Slot>, Vec<Unusable>)> {
    let directory = root.path(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let (mut found, mut unusable) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let version = name.split(FOR).next().unwrap_or_default().to_owned();
        match slot(&path) {
            Ok(slot) => found.push(slot),
            Err(error) => {
                unusable.push(Unusable { version, reason: format!("{error:#}"), directory: path });
            }
        }
    }
    found.sort_by_key(|slot| (slot.misfit().is_some(), std::cmp::Reverse(slot.used)));
    unusable.sort_by(|a, b| a.version.cmp(&b.version));
    Ok((found, unusable))
}

impl Slot {
    /// The file systems that have no room for the files of this slot, where they belong: for those that are
    /// not there yet, each beside what it replaces.
    ///
    /// # Errors
    /// A file system cannot be asked.
    pub fn shortages(&self, root: &Root) -> Result<Vec<Short>> {
        let mut places: BTreeMap<u64, (PathBuf, u64, u64)> = BTreeMap::new();
        for file in self.manifest.regular() {
            let to = root.path(&file.path);
            let now = fs::symlink_metadata(&to).ok().filter(fs::Metadata::is_file);
            if now.as_ref().is_some_and(|now| is_in_place(now, file)) {
                continue;
            }
            let (place, device) = room::file_system(&to)?;
            let (_, more, largest) = places.entry(device).or_insert((place, 0, 0));
            *more += file.size.saturating_sub(now.map_or(0, |now| now.size()));
            *largest = file.size.max(*largest);
        }
        let mut short = Vec::new();
        for (place, more, largest) in places.into_values() {
            let needed = more + largest + room::MARGIN;
            // What is set aside for root is for this, if for anything.
            let free = room::bytes(&place, |data| data.f_bfree)?;
            if free < needed {
                short.push(Short { place, free, needed });
            }
        }
        Ok(short)
    }
}

/// Compares size and time only, since it has to be fast.
fn is_in_place(now: &fs::Metadata, file: &SavedFile) -> bool {
    now.size() == file.size && attributes::modified_nsec(now) == file.modified_nsec
}

/// The slots, newest first. One that cannot be read is reported and left out: it cannot be rolled back to.
///
/// # Errors
/// The directory cannot be read.
pub fn slots(root: &Root) -> Result<Vec<Slot>> {
    let (found, unusable) = all(root)?;
    for slot in unusable {
        step::say(&format!("the slot of driver {} cannot be used: {}", slot.version, slot.reason));
    }
    Ok(found)
}

/// The slot in `directory`.
pub(crate) fn slot(directory: &Path) -> Result<Slot> {
    check_owner(&directory.join(manifest::FILE))?;
    let used = fs::metadata(directory)
        .and_then(|data| data.modified())
        .with_context(|| format!("look at {}", directory.display()))?;
    Ok(Slot { manifest: Manifest::read(directory)?, used, directory: directory.to_owned() })
}

/// Why no slot can be believed: others than root can write to their folder. None where they cannot.
pub fn untrusted(root: &Root) -> Option<Untrusted> {
    match check_owner(&root.path(DIRECTORY)) {
        Err(OwnerError::Untrusted(found)) => Some(found),
        // What needs a slot reports that there is none.
        _ => None,
    }
}

/// Where NVML's library of `version` is saved, if it is: only a library of the loaded driver's version
/// can tell what is set on the GPUs, and an upgrade takes that away as well.
pub fn library_in_slot(root: &Root, version: &str) -> PathBuf {
    let name = format!("{LIBRARY}{version}");
    let (slots, _) = all(root).unwrap_or_default();
    let saved = slots.iter().filter(|slot| slot.manifest.version == version).find_map(|slot| {
        let file = slot.regular().find(|file| file.path.ends_with(&format!("/{name}")))?;
        // Root loads it.
        Some(slot.directory.join(file.stored_as())).filter(|path| check_owner(path).is_ok())
    });
    // Where there is none, none is found there.
    saved.unwrap_or_else(|| root.path(DIRECTORY).join(version).join(name))
}
