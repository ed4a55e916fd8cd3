//! Putting a kept driver back where it belongs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use modules::Disk;
use step::Root;

use crate::collect::below;
use crate::manifest::{Entry, KeptFile, KeptLink};
use crate::{Slot, linker, store, tree};

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
/// well. Whether the slot is whole is the caller's to check before.
///
/// # Errors
/// A file cannot be written, or `ldconfig` or `depmod` fails.
pub fn put_in_place(root: &Root, slot: &Slot, disk: &Disk, others: &BTreeSet<String>) -> Result<Placed> {
    let mut placed = Placed::default();
    for entry in &slot.manifest.files {
        let path = Path::new(entry.path());
        let changed = match entry {
            Entry::File(file) => put_file(root, slot, file)?,
            Entry::Link(link) => put_link(root, link)?,
        };
        if changed {
            placed.replaced.insert(path.to_owned());
        }
    }
    take_away(root, slot, disk, others, &mut placed)?;
    // The files before the index that speaks of them.
    store::sync(&root.path("/usr/lib"))?;
    let modules = root.path("/lib/modules");
    if modules.exists() {
        store::sync(&modules)?;
    }
    if root.is_system() {
        run("ldconfig", &[])?;
        if index_is_stale(root, slot)? {
            run("depmod", &[&slot.manifest.kernel])?;
        }
    }
    Ok(placed)
}

/// The versions of all drivers that have modules for this kernel or libraries on disk: in the midst of an
/// install there are several.
///
/// # Errors
/// A module file or a directory cannot be read.
pub fn on_disk(root: &Root, disk: &Disk) -> Result<BTreeSet<String>> {
    let modules = disk.files()?.into_iter().filter(|file| DRIVERS.contains(&file.name.as_str()));
    let mut found: BTreeSet<String> = modules.filter_map(|file| file.version).collect();
    for directory in linker::directories(root)? {
        found.extend(tree::list(root, &directory)?.iter().filter_map(|path| linker::version_of(path)));
    }
    Ok(found)
}

/// Puts one file in place, unless it is there. Whether it had to be.
fn put_file(root: &Root, slot: &Slot, file: &KeptFile) -> Result<bool> {
    let to = root.path(&file.path);
    match fs::symlink_metadata(&to) {
        Ok(data)
            if data.is_file()
                && data.size() == file.size
                && data.mode() & 0o7777 == file.mode
                && (data.uid(), data.gid()) == (file.uid, file.gid)
                && store::checksum(&to)? == file.sha256 =>
        {
            return Ok(false);
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("look at {}", to.display())),
    }
    let new = aside(&to)?;
    // A copy even where a link would do: who writes into the file must not spoil the slot.
    let sum = store::copy(&slot.directory.join(file.kept()), &new, 0o600)?;
    if sum != file.sha256 {
        fs::remove_file(&new).with_context(|| format!("remove {}", new.display()))?;
        bail!("the kept copy of {} is spoiled", file.path);
    }
    store::dress(&new, file.uid, file.gid, file.mode, file.modified_nsec)?;
    rename(&new, &to)
}

fn put_link(root: &Root, link: &KeptLink) -> Result<bool> {
    let to = root.path(&link.path);
    if fs::read_link(&to).is_ok_and(|target| target == Path::new(&link.target)) {
        return Ok(false);
    }
    let new = aside(&to)?;
    std::os::unix::fs::symlink(&link.target, &new).with_context(|| format!("link {}", new.display()))?;
    rename(&new, &to)
}

/// A free name beside `to`, on which nobody looks: what a power cut left there goes.
fn aside(to: &Path) -> Result<PathBuf> {
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

fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
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
    let is_theirs =
        |path: &Path| !own.contains(path) && others.iter().any(|version| linker::is_of(path, version));
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
    for file in disk.files()? {
        let Some(path) = below(root, &file.path) else { continue };
        let of_others = file.version.as_ref().is_some_and(|version| others.contains(version));
        if of_others && !own.contains(path.as_path()) && remove(&file.path)? {
            placed.removed.insert(path);
        }
    }
    Ok(())
}

/// Whether a module file, or the directory of one, changed after the index was made: told by their
/// times, so that it holds after a power cut as well.
fn index_is_stale(root: &Root, slot: &Slot) -> Result<bool> {
    let index = root.path("/lib/modules").join(&slot.manifest.kernel).join("modules.dep.bin");
    let time = |path: &Path| -> Result<Option<(i64, i64)>> {
        match fs::metadata(path) {
            Ok(data) => Ok(Some((data.ctime(), data.ctime_nsec()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
        }
    };
    let Some(made) = time(&index)? else { return Ok(true) };
    for file in slot.manifest.regular().filter(|file| file.module.is_some()) {
        let path = root.path(&file.path);
        for path in [Some(path.as_path()), path.parent()].into_iter().flatten() {
            if time(path)?.is_none_or(|changed| changed > made) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status =
        Command::new(program).args(arguments).status().with_context(|| format!("start {program}"))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
