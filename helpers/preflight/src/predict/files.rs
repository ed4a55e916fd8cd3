// SPDX-License-Identifier: MIT
//! The files for what is loaded: all there, whole, of one version.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use modules::{DRIVER, Disk, Loaded, Manager, Unreadable};
use step::Root;

use super::elf::{self, Flaw};
use super::unpack::Damage;
use super::{Found, driver};
use crate::findings::Findings;

/// The files for the modules in `loaded`.
///
/// # Errors
/// A file that was there is not any more.
pub(crate) fn find(
    disk: &Disk,
    loaded: &[Loaded],
    release: &str,
    findings: &mut Findings,
) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    // Where modules are renamed, a file that cannot be read is in the way of each of them.
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for module in loaded {
        let name = &module.module.name;
        let none = || {
            (
                format!("there is no file on disk for {name} and kernel {release}"),
                "build or install the driver's modules for the running kernel",
            )
        };
        let (what, remedy) = match disk.find(name) {
            Ok(Some(file)) => match flaw(&file.path, findings) {
                Ok(None) => {
                    let declared = disk.declared(&file.path)?;
                    found.push(Found { file, declared });
                    continue;
                }
                Ok(Some(flaw)) => (format!("{} {flaw}", file.path.display()), AGAIN),
                Err(error) => (format!("{} cannot be read: {error}", file.path.display()), AGAIN),
            },
            Ok(None) => none(),
            Err(error) => match error.downcast_ref::<Unreadable>() {
                // The index still has it.
                Some(Unreadable(path)) if !path.exists() => none(),
                Some(Unreadable(path)) => (unreadable(path, &error), AGAIN),
                None => (format!("the file on disk for {name} cannot be used: {error:#}"), AGAIN),
            },
        };
        if seen.insert(what.clone()) {
            findings.refuse(what, remedy);
        }
    }
    Ok(found)
}

/// The files that `found` need and whose modules are not loaded: they would be loaded with the driver. They are
/// the kernel's own, or other people's.
///
/// # Errors
/// What is loaded or the module index cannot be read.
pub(crate) fn needed(
    root: &Root,
    disk: &Disk,
    found: &[Found],
    findings: &mut Findings,
) -> Result<Vec<Found>> {
    let mut needed: Vec<Found> = Vec::new();
    let mut damaged: BTreeMap<PathBuf, String> = BTreeMap::new();
    for one in found {
        let files = match disk.needs(root, &one.file) {
            Ok(files) => files,
            Err(error) => match error.downcast_ref::<Unreadable>() {
                Some(Unreadable(path)) => {
                    damaged.insert(path.clone(), unreadable(path, &error));
                    continue;
                }
                None => return Err(error),
            },
        };
        for file in files {
            let is_it = |known: &Found| known.file.path == file.path;
            if found.iter().any(is_it) || needed.iter().any(is_it) {
                continue;
            }
            match flaw(&file.path, findings) {
                Ok(None) => {
                    let declared = disk.declared(&file.path)?;
                    needed.push(Found { file, declared });
                }
                Ok(Some(flaw)) => {
                    damaged.insert(file.path.clone(), format!("{} {flaw}", file.path.display()));
                }
                Err(error) => {
                    damaged.insert(
                        file.path.clone(),
                        format!("{} cannot be read: {error}", file.path.display()),
                    );
                }
            }
        }
    }
    for what in damaged.into_values() {
        findings.refuse(format!("{what}, and the driver needs it"), "install the package of that file again");
    }
    Ok(needed)
}

/// What is wrong with a file that libkmod has read, and so unpacked: where it cannot be unpacked here, that is no
/// fault of the file's.
fn flaw(path: &Path, findings: &mut Findings) -> io::Result<Option<Flaw>> {
    let flaw = elf::flaw(path)?;
    if !matches!(flaw, Some(Flaw::Packed(Damage::Corrupt))) {
        return Ok(flaw);
    }
    findings.warn(
        format!("{} is compressed in a way that is not read here: not all of it is judged", path.display()),
        "if it does not load, the run is rolled back",
    );
    Ok(None)
}

const AGAIN: &str = "install the driver's modules again";

/// What is wrong with a file that libkmod cannot read, in plain words where they are known.
fn unreadable(path: &Path, error: &anyhow::Error) -> String {
    match elf::flaw(path) {
        Ok(Some(flaw)) => format!("{} {flaw}", path.display()),
        // Libkmod asks for more than is looked at here.
        _ => format!("{} is damaged, or no kernel module: {}", path.display(), error.root_cause()),
    }
}

/// Modules of the driver serve only beside those of their own version.
pub(crate) fn of_one_version(root: &Root, found: &[Found], findings: &mut Findings) {
    // Modules of other people that hang on the driver have versions of their own.
    let Some(driver) = driver(found) else { return };
    let Some(version) = &driver.file.version else { return };
    let others = found.iter().filter(|one| one.is_of_driver() && one.file.name != DRIVER);
    for other in others {
        // nvidia_uvm tells its version since 520 (its MODULE_VERSION): where one is silent, nothing is known.
        if let Some(of_other) = other.file.version.as_ref().filter(|of_other| *of_other != version) {
            findings.refuse(
                format!(
                    "the modules on disk are of several versions: {} of {version}, {} of {of_other}",
                    driver.file.path.display(),
                    other.file.path.display(),
                ),
                Manager::of(root).finish(),
            );
            return;
        }
    }
}
