// SPDX-License-Identifier: MIT
//! Putting a saved driver back where it belongs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use modules::{Disk, is_driver_version};
use step::Root;

use crate::collect::below;
use crate::manifest::{Entry, SavedFile, SavedLink};
use crate::{Slot, attributes, damaged, linker, store, tree};

/// The modules that carry the driver's version; what others build on it has its own.
const DRIVERS: [&str; 5] = ["nvidia", "nvidia_modeset", "nvidia_uvm", "nvidia_drm", "nvidia_peermem"];

/// What became of the files on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// What was put in place.
    pub replaced: BTreeSet<PathBuf>,
    /// What only the other driver had, and would have been found in its stead.
    pub removed: BTreeSet<PathBuf>,
}

/// Puts the files of `slot` where they belong, takes away what the drivers `others` have that would be
/// found in their stead, and makes the linker's cache and the module index right.
///
/// Each file is whole at any moment, the old one or the new one; after a power cut the same again ends
/// well. Whether the slot is whole is the caller's to check before. Where it is for another kernel than the
/// one that runs, that one's modules stay as they are.
///
/// # Errors
/// A file cannot be written, or `ldconfig` or `depmod` fails.
pub fn put_in_place(root: &Root, slot: &Slot, disk: &Disk, others: &BTreeSet<String>) -> Result<Placed> {
    let mut placed = Placed::default();
    let directory = modules::directory(root, &slot.manifest.kernel);
    // A kernel that was removed meanwhile needs no modules.
    let has_kernel = slot.misfit().is_none() || directory.exists();
    let wanted = |entry: &&Entry| has_kernel || !entry.is_module();
    let entries: Vec<&Entry> = slot.manifest.files.iter().filter(wanted).collect();
    // While both drivers are there, each file has its own; so the other goes last. Only where there is no
    // room for both does it go first: then neither is whole for a while.
    let mut full = slot.shortages(root)?.into_iter().map(|short| short.to_string()).next();
    if full.is_none() {
        match put_all(root, slot, &entries, &mut placed) {
            Err(error) if is_full(&error) => full = Some(format!("{error:#}")),
            put => put?,
        }
    }
    take_away(root, slot, disk, others, &mut placed)?;
    if let Some(full) = full {
        step::say(&format!("the other driver's files went first: {full}"));
        // Some file systems have the room of what was removed only after that is on disk.
        sync(root)?;
        put_all(root, slot, &entries, &mut placed)?;
    }
    // The files before the index that speaks of them.
    sync(root)?;
    if root.is_system() {
        run("ldconfig", &[])?;
        if has_kernel && index_is_stale(root, slot, disk, &placed)? {
            run("depmod", &[&slot.manifest.kernel])?;
        }
    }
    Ok(placed)
}

fn put_all(root: &Root, slot: &Slot, entries: &[&Entry], placed: &mut Placed) -> Result<()> {
    for entry in entries {
        let changed = match entry {
            Entry::File(file) => put_file(root, slot, file)?,
            Entry::Link(link) => put_link(root, link)?,
        };
        if changed {
            placed.replaced.insert(PathBuf::from(entry.path()));
        }
    }
    Ok(())
}

fn is_full(error: &anyhow::Error) -> bool {
    let is =
        |error: &std::io::Error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    error.downcast_ref().is_some_and(is)
}

/// Waits until the libraries and modules that were written are on disk.
///
/// # Errors
/// The disk failed, or was full before all of it was there.
pub fn sync(root: &Root) -> Result<()> {
    for directory in ["/usr/lib", "/lib/modules"].map(|directory| root.path(directory)) {
        if directory.exists() {
            store::sync(&directory)?;
        }
    }
    Ok(())
}

/// The versions of all drivers of which modprobe or the linker would find something: in the middle of an
/// install there are several. Libraries count where `slot` has libraries, which they could be found in
/// the stead of; without a slot, wherever the linker looks.
///
/// A driver that lies beside the one that is chosen, as Debian's do, is in no other file's way.
///
/// # Errors
/// The module index or a directory cannot be read.
pub fn on_disk(root: &Root, disk: &Disk, slot: Option<&Slot>) -> Result<BTreeSet<String>> {
    let saved: BTreeSet<String> = slot
        .iter()
        .flat_map(|slot| &slot.manifest.files)
        .filter_map(|entry| stem(entry.path().as_ref()))
        .collect();
    let mut found = BTreeSet::new();
    for file in damaged::files(disk)?.0 {
        let name = file.name.as_str();
        let is_found = DRIVERS.contains(&name)
            && (file.alias == name
                || saved.contains(&file.alias)
                || damaged::find(disk, name)?.is_some_and(|first| first.path == file.path));
        found.extend(file.version.filter(|_| is_found));
    }
    let has_libraries = |directory: &PathBuf| {
        slot.is_none_or(|slot| {
            slot.manifest
                .files
                .iter()
                .map(|entry| Path::new(entry.path()))
                .any(|path| path.parent() == Some(directory) && path.to_string_lossy().contains(".so"))
        })
    };
    for directory in linker::directories(root)?.into_iter().filter(has_libraries) {
        found.extend(tree::list(root, &directory)?.iter().filter_map(|path| linker::version_of(path)));
    }
    Ok(found)
}

/// Puts one file in place, unless it is there. Whether it had to be.
pub(crate) fn put_file(root: &Root, slot: &Slot, file: &SavedFile) -> Result<bool> {
    let to = root.path(&file.path);
    match fs::symlink_metadata(&to) {
        Ok(data)
            if data.is_file()
                && data.size() == file.size
                && data.mode() & 0o7777 == file.mode
                && (data.uid(), data.gid()) == (file.uid, file.gid)
                && attributes::read(&to)? == file.attributes
                && store::checksum(&to)? == file.sha256 =>
        {
            return Ok(false);
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("look at {}", to.display())),
    }
    let new = temporary(&to)?;
    let put = || {
        // A copy even where a link would do: who writes into the file must not damage the slot.
        let sum = store::copy(&slot.directory.join(file.stored_as()), &new, 0o600, 0)?;
        if sum != file.sha256 {
            bail!("the saved copy of {} is corrupt", file.path);
        }
        store::set_metadata(&new, file.uid, file.gid, file.mode, file.modified_nsec)?;
        // After the owner, whose change takes capabilities away.
        attributes::write(&new, &file.attributes);
        rename(&new, &to)
    };
    put().inspect_err(|_| {
        // Half a file is of no use; should it stay, it has a name that no program looks for.
        let _ = remove(&new);
    })
}

fn put_link(root: &Root, link: &SavedLink) -> Result<bool> {
    let to = root.path(&link.path);
    if fs::read_link(&to).is_ok_and(|target| target == Path::new(&link.target)) {
        return Ok(false);
    }
    let new = temporary(&to)?;
    std::os::unix::fs::symlink(&link.target, &new).with_context(|| format!("link {}", new.display()))?;
    rename(&new, &to)
}

/// A free name beside `to`, at which no program looks: what a power cut left there goes.
fn temporary(to: &Path) -> Result<PathBuf> {
    let parent = to.parent().with_context(|| format!("{} has no directory", to.display()))?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let mut name = OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(".nvidia-reload");
    let new = parent.join(name);
    remove(&new)?;
    Ok(new)
}

fn rename(from: &Path, to: &Path) -> Result<bool> {
    fs::rename(from, to).with_context(|| format!("put {} in place", to.display()))?;
    Ok(true)
}

/// Removes a file. Whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    files::remove(path).with_context(|| format!("remove {}", path.display()))
}

/// Takes away what the linker and modprobe would find instead: of several libraries for one name the
/// linker takes the one of the highest version, and modprobe looks into several directories.
fn take_away(
    root: &Root,
    slot: &Slot,
    disk: &Disk,
    others: &BTreeSet<String>,
    placed: &mut Placed,
) -> Result<()> {
    let own: BTreeSet<&Path> = slot.manifest.files.iter().map(|entry| Path::new(entry.path())).collect();
    let names: BTreeSet<&str> = own.iter().filter_map(|path| soname(path)).collect();
    let is_theirs = |path: &Path| {
        !own.contains(path)
            && others.iter().any(|version| is_driver_version(version) && linker::is_of(path, version))
            && (linker::is_nvidias(path) || soname(path).is_some_and(|name| names.contains(name)))
    };
    let directories = linker::directories(root)?;
    for directory in &directories {
        for path in tree::list(root, directory)? {
            if is_theirs(&path) && remove(&root.path(&path))? {
                placed.removed.insert(path);
            }
        }
    }
    // The links that led there, and lead nowhere now.
    for directory in &directories {
        for path in tree::list(root, directory)? {
            let target = match fs::read_link(root.path(&path)) {
                Ok(target) => directory.join(target),
                Err(_) => continue,
            };
            if placed.removed.contains(&target) && !own.contains(path.as_path()) {
                remove(&root.path(&path))?;
                placed.removed.insert(path);
            }
        }
    }
    if slot.misfit().is_some() {
        return Ok(());
    }
    let (files, damaged) = damaged::files(disk)?;
    let theirs = files
        .into_iter()
        .filter(|file| file.version.as_ref().is_some_and(|version| others.contains(version)))
        .map(|file| file.path);
    // The owner of a damaged file is not known. Nothing uses it, and what it is called is looked for.
    let names: BTreeSet<String> =
        own.iter().filter_map(|path| stem(path)).chain(DRIVERS.map(str::to_owned)).collect();
    let damaged = damaged.into_iter().map(|file| file.0);
    let damaged = damaged.filter(|path| stem(path).is_some_and(|stem| names.contains(&stem)));
    for file in theirs.chain(damaged) {
        let Some(path) = below(root, &file) else { continue };
        if !own.contains(path.as_path()) && remove(&file)? {
            placed.removed.insert(path);
        }
    }
    Ok(())
}

/// A library's name up to its version.
fn soname(path: &Path) -> Option<&str> {
    Some(path.file_name()?.to_str()?.split_once(".so.")?.0)
}

/// The name that modprobe knows a module file by; none for any other file.
fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.split_once(".ko")?.0.replace('-', "_"))
}

/// Whether a module file, or the directory of one, changed after the index was made: known by their
/// times, so that it holds after a power cut as well. What was taken away may have been anywhere: that the
/// index still has it tells.
fn index_is_stale(root: &Root, slot: &Slot, disk: &Disk, placed: &Placed) -> Result<bool> {
    let is_running = slot.misfit().is_none();
    if is_running && (placed.removed.iter().any(|path| stem(path).is_some()) || disk.misses_files()?) {
        return Ok(true);
    }
    let index = modules::directory(root, &slot.manifest.kernel).join("modules.dep.bin");
    let time = |path: &Path| -> Result<Option<(i64, i64)>> {
        match fs::symlink_metadata(path) {
            Ok(data) => Ok(Some((data.ctime(), data.ctime_nsec()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
        }
    };
    let Some(made) = time(&index)? else { return Ok(true) };
    for entry in slot.manifest.files.iter().filter(|entry| entry.is_module()) {
        let path = root.path(entry.path());
        for path in [Some(path.as_path()), path.parent()].into_iter().flatten() {
            if time(path)?.is_none_or(|changed| changed > made) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// How long `ldconfig` or `depmod` may take: a slow machine needs a minute.
const INDEX: Duration = Duration::from_secs(4 * 60);

pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    let status = bounded::run(command.args(arguments).process_group(0), Instant::now() + INDEX)
        .with_context(|| format!("run {program} {}", arguments.join(" ")))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
