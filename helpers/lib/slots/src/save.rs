// SPDX-License-Identifier: MIT
//! Making a slot of the loaded driver.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use modules::{DRIVER, Disk, File, Loaded};
use step::Root;

use crate::collect::{Driver, below, collect};
use crate::manifest::{self, Entry, Manifest, SavedFile, SavedLink, SavedModule};
use crate::slot::{self, Slot};
use crate::{DIRECTORY, Healed, Note, attributes, linker, store, tree};

/// How many slots there are at most.
const SLOTS: usize = 2;

/// For how many kernels each.
const KERNELS: usize = 2;

/// Why a driver is not saved that is exchanged at the same time.
const CHANGED: &str =
    "changed while the driver was saved; `systemctl start nvidia-reload-save-driver.service` tries it again";

/// Permission bits.
const MODE: u32 = 0o7777;

/// Saves the driver whose modules are in `chain`, which are loaded, if the disk still has them all. For who has
/// the lock for it, see [`crate::lock_to_save`]: a driver that is being exchanged is not whole.
/// Returns the version that is saved, or none when the disk has another.
///
/// # Errors
/// The driver's files cannot be found, or one cannot be copied.
pub fn save(root: &Root, disk: &Disk, chain: &[Loaded]) -> Result<Option<String>> {
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
    let driver = collect(root, disk, &version, files)?;
    let place = slot::place(root, &version)?;
    let wanted = entries(root, &driver)?;
    if let Ok(slot) = slot::slot(&place)
        && (still_right(&slot, &wanted) || is_put_back(root, &slot)?)
    {
        fs::File::open(&place)
            .and_then(|place| place.set_modified(SystemTime::now()))
            .with_context(|| format!("touch {}", place.display()))?;
        return Ok(Some(version));
    }
    make(root, &driver, &version, wanted, &place)?;
    prune(root, &version)?;
    Ok(Some(version))
}

/// What the manifest would say of the driver, without the checksums.
pub(crate) fn entries(root: &Root, driver: &Driver) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    for module in &driver.modules {
        let gone = || format!("{} is gone", module.path.display());
        // Where kernels share modules, that of one is a link to that of another (RHEL's weak-updates).
        let (links, path) = tree::follow(root, &below(root, &module.path).with_context(gone)?)?;
        let path = path.with_context(gone)?;
        for (path, target) in links {
            found.insert(path.clone(), linked(&path, &target)?);
        }
        found.insert(path.clone(), Entry::File(described(root, &path, Some(module))?));
    }
    for path in driver.files.keys() {
        if !found.contains_key(path) {
            found.insert(path.clone(), Entry::File(described(root, path, None)?));
        }
    }
    for (path, target) in &driver.links {
        found.insert(path.clone(), linked(path, target)?);
    }
    Ok(found)
}

fn linked(path: &Path, target: &Path) -> Result<Entry> {
    Ok(Entry::Link(SavedLink { path: text(path)?, target: text(target)? }))
}

fn described(root: &Root, path: &Path, module: Option<&File>) -> Result<SavedFile> {
    let real = root.path(path);
    let data = fs::symlink_metadata(&real).with_context(|| format!("look at {}", real.display()))?;
    Ok(SavedFile {
        path: text(path)?,
        mode: data.mode() & MODE,
        uid: data.uid(),
        gid: data.gid(),
        size: data.size(),
        modified_nsec: attributes::modified_nsec(&data),
        sha256: String::new(),
        attributes: attributes::read(&real)?,
        module: module.map(|file| SavedModule {
            name: file.name.clone(),
            version: file.version.clone(),
            srcversion: file.srcversion.clone(),
            vermagic: file.vermagic.clone(),
            options: file.options.clone(),
        }),
    })
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is no text", path.display()))
}

/// Whether what is on disk came from `slot`, by a rollback. The package database has those files of another driver's
/// packages then, or of none: a new slot would name those, and miss what only the packages know of.
pub(crate) fn is_put_back(root: &Root, slot: &Slot) -> Result<bool> {
    let note = Note::read(root)?;
    Ok(is_whole(slot) && note.is_some_and(|note| note.version == slot.manifest.version))
}

/// Whether `slot` has all its files, by their sizes.
fn is_whole(slot: &Slot) -> bool {
    slot.manifest.regular().all(|file| {
        fs::symlink_metadata(slot.directory.join(file.stored_as())).is_ok_and(|data| data.size() == file.size)
    })
}

/// Whether `slot` holds the driver already. Known by size and time: what it says of itself is checked
/// when it is used.
pub(crate) fn still_right(slot: &Slot, wanted: &BTreeMap<PathBuf, Entry>) -> bool {
    if !is_whole(slot) {
        return false;
    }
    let saved: BTreeMap<&str, Entry> =
        slot.manifest.files.iter().map(|entry| (entry.path(), without_sum(entry))).collect();
    let same =
        |(path, entry): (&PathBuf, &Entry)| path.to_str().and_then(|path| saved.get(path)) == Some(entry);
    // In the middle of an upgrade libraries may be gone and the modules still there: the slot has more than
    // the disk then.
    let version = &slot.manifest.version;
    let has_more = slot
        .manifest
        .regular()
        .map(|file| Path::new(&file.path))
        .any(|path| linker::is_of(path, version) && !wanted.contains_key(path));
    match has_more {
        true => wanted.iter().filter(|(_, entry)| is_module(entry)).all(same),
        false => wanted.len() == saved.len() && wanted.iter().all(same),
    }
}

fn is_module(entry: &Entry) -> bool {
    matches!(entry, Entry::File(file) if file.module.is_some())
}

fn without_sum(entry: &Entry) -> Entry {
    match entry {
        Entry::File(file) => Entry::File(SavedFile { sha256: String::new(), ..file.clone() }),
        Entry::Link(_) => entry.clone(),
    }
}

/// Makes the slot aside and then puts it in its place.
pub(crate) fn make(
    root: &Root,
    driver: &Driver,
    version: &str,
    wanted: BTreeMap<PathBuf, Entry>,
    place: &Path,
) -> Result<()> {
    let directory = root.path(DIRECTORY);
    // What a power cut left of another time.
    for entry in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            remove(&path)?;
        }
    }
    let new = directory.join(format!("{version}.new"));
    let made = fill(root, driver, version, wanted, &new).and_then(|()| {
        remove(place)?;
        fs::rename(&new, place).with_context(|| format!("create {}", place.display()))?;
        store::sync(&directory)
    });
    if made.is_err() {
        // A gigabyte that is of no use to anybody. Should it stay: the next time removes it.
        remove(&new).unwrap_or_else(|error| step::say(&format!("{error:#}")));
    }
    made
}

/// Copies all that is `wanted` into the directory `new`.
fn fill(
    root: &Root,
    driver: &Driver,
    version: &str,
    wanted: BTreeMap<PathBuf, Entry>,
    new: &Path,
) -> Result<()> {
    let is_linked = |path: &Path| driver.files.get(path).copied().unwrap_or(false);
    let mut donors = slot::all(root)?.0;
    donors.retain(|slot| slot.manifest.version == version && slot.misfit().is_some());
    let is_copied = |file: &SavedFile| {
        (!is_linked(Path::new(&file.path)) || !may_link(file)) && donor(&donors, file).is_none()
    };
    let regular = wanted.values().filter_map(|entry| match entry {
        Entry::File(file) => Some(file),
        Entry::Link(_) => None,
    });
    let mut rest: u64 = regular.filter(|file| is_copied(file)).map(|file| file.size).sum();
    let mut files = Vec::new();
    for (path, entry) in wanted {
        files.push(match entry {
            Entry::Link(_) => entry,
            Entry::File(mut file) => {
                let to = new.join(file.stored_as());
                let parent = to.parent().unwrap_or(new);
                fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
                let shared = donor(&donors, &file)
                    .and_then(|(from, sum)| store::share(&root.path(&path), &from, &to, sum));
                let sum = match shared {
                    Some(sum) => sum,
                    None => store::save(&root.path(&path), &to, is_linked(&path) && may_link(&file), rest)?,
                };
                // It was looked at before hundreds of others were copied.
                if described(root, &path, None)? != (SavedFile { module: None, ..file.clone() }) {
                    bail!("{} {CHANGED}", path.display());
                }
                if is_copied(&file) {
                    rest = rest.saturating_sub(file.size);
                }
                file.sha256 = sum;
                Entry::File(file)
            }
        });
    }
    // What is said of the modules was read earlier still.
    let disk = Disk::open(root)?;
    for module in &driver.modules {
        let now = disk.inspect(&module.path)?;
        let same = |file: &File| {
            (file.name.clone(), file.version.clone(), file.srcversion.clone(), file.vermagic.clone())
        };
        if same(&now) != same(module) {
            bail!("{} {CHANGED}", module.path.display());
        }
    }
    let manifest = Manifest {
        schema: manifest::SCHEMA.to_owned(),
        version: version.to_owned(),
        kernel: slot::running_kernel()?,
        made_usec: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64),
        origin: driver.origin,
        packages: driver.packages.clone(),
        files,
    };
    let path = new.join(manifest::FILE);
    fs::write(&path, serde_json::to_vec_pretty(&manifest).context("encode a manifest")?)
        .with_context(|| format!("write {}", path.display()))?;
    store::sync(new)
}

/// Removes what is too old, and what was made by an earlier version of this program. Not the `newest`: where
/// the clock was set back, that is the oldest by its time.
pub(crate) fn prune(root: &Root, newest: &str) -> Result<()> {
    let (mut saved, unusable) = slot::all(root)?;
    // Whose libraries are in use goes back to its slot where a reload fails.
    let healed = Healed::read(root)?.map(|healed| healed.version);
    saved.retain(|slot| healed.as_ref() != Some(&slot.manifest.version));
    // The one that was just made comes first.
    let is_newest = |slot: &Slot| slot.manifest.version == newest && slot.misfit().is_none();
    saved.sort_by_key(|slot| (!is_newest(slot), slot.manifest.version != newest, Reverse(slot.used)));
    let mut kernels: BTreeMap<String, usize> = BTreeMap::new();
    for slot in saved {
        let is_full = kernels.len() >= SLOTS;
        match kernels.get_mut(&slot.manifest.version) {
            Some(count) if *count < KERNELS => *count += 1,
            None if !is_full => {
                kernels.insert(slot.manifest.version, 1);
            }
            _ => remove(&slot.directory)?,
        }
    }
    for slot in unusable {
        remove(&slot.directory)?;
    }
    Ok(())
}

/// Whether a slot may share this file by a hard link, see [`store::save`]: no program that may more than who runs
/// it stays in reach.
fn may_link(file: &SavedFile) -> bool {
    store::may_link(file.mode) && !attributes::gives_capabilities(&file.attributes)
}

/// The same file in a slot of the same driver for another kernel, with its checksum. A set-user-ID bit is no
/// matter: a slot has none.
fn donor<'a>(slots: &'a [Slot], file: &SavedFile) -> Option<(PathBuf, &'a str)> {
    if file.module.is_some() {
        return None;
    }
    slots.iter().find_map(|slot| {
        let is_it = |other: &&SavedFile| SavedFile { sha256: String::new(), ..(*other).clone() } == *file;
        let found = slot.manifest.regular().find(is_it)?;
        Some((slot.directory.join(found.stored_as()), found.sha256.as_str()))
    })
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", directory.display())),
    }
}
