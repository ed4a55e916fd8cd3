// SPDX-License-Identifier: MIT
//! The measure for what the running kernel takes is what it has taken already: the files that loaded modules
//! were loaded from, known by their build id.
//!
//! No headers are needed for that, and a kernel that was rebuilt under its old name, and not yet booted,
//! misleads no check.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use modules::{Disk, Loaded};
use slots::slots;
use step::Root;

use super::elf;
use crate::findings::Findings;

/// What the running kernel is known to have.
#[derive(Debug, Default)]
pub(super) struct Measure {
    /// The vermagic of a module that it took.
    pub(super) vermagic: Option<String>,
    /// The versions of symbols in modules that it took.
    pub(super) versions: HashMap<String, u64>,
}

/// The files of loaded modules, as far as they are there, and are those for certain: the copies that are
/// saved of the driver, or else what is in the kernel's directory of other modules.
pub(super) fn measure(
    root: &Root,
    disk: &Disk,
    loaded: &[Loaded],
    findings: &mut Findings,
) -> Result<Measure> {
    let mut measure = Measure::default();
    // What the driver's modules need from each other changes with the driver.
    let mut own: HashSet<String> = HashSet::new();
    for slot in slots(root)? {
        for module in loaded {
            let Some(file) = slot.find(&module.module) else { continue };
            // A saved file that is corrupt measures nothing. It is no reason to refuse the driver.
            match measure.add_taken(root, disk, module, &file.path, file.vermagic.as_deref()) {
                Ok(exports) => own.extend(exports),
                Err(error) => findings.warn(
                    format!("the slot of {} cannot be read: {error:#}", file.path.display()),
                    "`nvidia-reload slots` shows the slots and whether they are complete",
                ),
            }
        }
    }
    measure.versions.retain(|name, _| !own.contains(name));
    if measure.vermagic.is_none() {
        let path = root.path("/proc/modules");
        let list = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for name in list.lines().filter_map(|line| line.split(' ').next()) {
            // The driver's own file is what is to be judged.
            if loaded.iter().any(|module| module.module.name == name) {
                continue;
            }
            let Some(path) = disk.indexed(name)? else { continue };
            // Other people's files: one that is gone or cannot be read is no matter of this driver.
            if was_taken(root, name, &path).unwrap_or_default()
                && let Ok(file) = disk.inspect(&path)
            {
                measure.add(disk, &path, file.vermagic.as_deref())?;
            }
        }
    }
    Ok(measure)
}

impl Measure {
    /// Adds the file if `module` was loaded from it. Returns what it exports then.
    fn add_taken(
        &mut self,
        root: &Root,
        disk: &Disk,
        module: &Loaded,
        path: &Path,
        vermagic: Option<&str>,
    ) -> Result<Vec<String>> {
        if !was_taken(root, &module.module.name, path)? {
            return Ok(Vec::new());
        }
        self.add(disk, path, vermagic)?;
        let declared = disk.declared(path)?;
        Ok(declared.exports.iter().map(|symbol| symbol.name.clone()).collect())
    }

    fn add(&mut self, disk: &Disk, path: &Path, vermagic: Option<&str>) -> Result<()> {
        let declared = disk.declared(path)?;
        if self.vermagic.is_none() {
            self.vermagic = vermagic.map(ToOwned::to_owned);
        }
        self.versions.extend(declared.needs.iter().map(|symbol| (symbol.name.clone(), symbol.crc)));
        Ok(())
    }
}

/// Whether the loaded module `name` was loaded from `path`, and without force.
fn was_taken(root: &Root, name: &str, path: &Path) -> Result<bool> {
    let directory = root.path("/sys/module").join(name);
    let note = match fs::read(directory.join("notes/.note.gnu.build-id")) {
        Ok(note) => note,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(error).with_context(|| format!("read the notes in {}", directory.display()));
        }
    };
    let forced = fs::read_to_string(directory.join("taint")).is_ok_and(|taint| taint.contains('F'));
    let of_file = elf::build_id(path).with_context(|| format!("read {}", path.display()))?;
    Ok(!forced && of_file.is_some() && of_file.as_deref() == elf::build_id_of_note(&note))
}
