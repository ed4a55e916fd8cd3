// SPDX-License-Identifier: MIT
//! The drivers that are saved to slots, and whether each could be loaded again.

use serde::Serialize;
use slots::{Origin, Slot};
use step::{Exit, Root};

use crate::fault::{Fault, Result};
use crate::status::versions;

/// The name and version of the JSON.
pub const SCHEMA: &str = "nvidia-reload.slots/1";

/// Whether a saved driver could be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Every file is as it was saved.
    Whole,
    /// It is whole, and its modules are for another kernel than the one that runs.
    OtherKernel,
    /// A file is not: it cannot be rolled back to.
    #[serde(rename = "spoiled")]
    Corrupt,
}

/// A driver in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// Its version.
    pub version: String,
    /// Whether it could be put back.
    pub state: State,
    /// What is wrong with it: each corrupt file, and the kernel where it is for another.
    pub problems: Vec<String>,
    /// When it was saved, in microseconds since 1970; null where that cannot be read.
    pub made_usec: Option<u64>,
    /// How many files it has.
    pub files: usize,
    /// The bytes that they have together; less on disk, where they are shared.
    pub bytes: u64,
    /// How its files were found; null where that cannot be read.
    pub origin: Option<Origin>,
    /// Whether it is the driver that is loaded.
    pub loaded: bool,
    /// Whether it is the driver that is on disk.
    pub on_disk: bool,
}

/// All slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct List {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The drivers, the newest first.
    pub slots: Vec<Saved>,
}

impl List {
    /// What `nvidia-reload slots` exits with: 1 where one is corrupt.
    pub fn exit(&self) -> Exit {
        match self.slots.iter().any(|slot| slot.state == State::Corrupt) {
            false => Exit::Done,
            true => Exit::Failed,
        }
    }
}

/// Looks at every file of every slot.
///
/// # Errors
/// The slots cannot be listed.
pub fn list(root: &Root) -> Result<List> {
    let (slots, unusable) = read(root)?;
    let driver = versions(root)?;
    let is = |here: &Option<String>, version: &str| here.as_deref() == Some(version);
    let mut found: Vec<Saved> = slots.iter().map(|slot| saved(slot, slot.corrupt_files())).collect();
    found.extend(unusable.into_iter().map(|slot| Saved {
        version: slot.version,
        state: State::Corrupt,
        problems: vec![slot.reason],
        made_usec: None,
        files: 0,
        bytes: 0,
        origin: None,
        loaded: false,
        on_disk: false,
    }));
    for one in &mut found {
        one.loaded = is(&driver.loaded, &one.version);
        one.on_disk = is(&driver.on_disk, &one.version);
    }
    Ok(List { schema: SCHEMA, slots: found })
}

fn saved(slot: &Slot, mut problems: Vec<String>) -> Saved {
    let manifest = &slot.manifest;
    let misfit = slot.misfit();
    let state = match (problems.is_empty(), &misfit) {
        (false, _) => State::Corrupt,
        (true, Some(_)) => State::OtherKernel,
        (true, None) => State::Whole,
    };
    problems.extend(misfit);
    Saved {
        version: manifest.version.clone(),
        state,
        problems,
        made_usec: Some(manifest.made_usec),
        files: manifest.files.len(),
        bytes: manifest.size(),
        origin: Some(manifest.origin),
        loaded: false,
        on_disk: false,
    }
}

fn read(root: &Root) -> Result<(Vec<Slot>, Vec<slots::Unusable>)> {
    slots::all(root)
        .map_err(|error| Fault::new(Exit::Failed, "the slots cannot be listed", "").because(&*error))
}

/// The slot of driver `version`, whole; without a version, the newest that is not loaded.
///
/// # Errors
/// There is none, it is corrupt or for another kernel, or there is no room for it: nothing was touched.
pub fn choose(root: &Root, version: Option<&str>) -> Result<Slot> {
    let loaded = versions(root)?.loaded;
    let (slots, unusable) = read(root)?;
    let shown = "`nvidia-reload slots` lists the saved drivers";
    let wanted = |slot: &Slot| match version {
        Some(version) => slot.manifest.version == version,
        None => Some(&slot.manifest.version) != loaded.as_ref(),
    };
    let Some(slot) = slots.into_iter().find(wanted) else {
        let unusable = unusable.iter().find(|slot| version.is_none_or(|version| slot.version == version));
        return Err(match (unusable, version) {
            (Some(slot), _) => Fault::refused(
                format!("the slot of driver {} is corrupt: {}", slot.version, slot.reason),
                shown,
            ),
            (None, Some(version)) => Fault::refused(format!("driver {version} is in no slot"), shown),
            (None, None) => Fault::refused("no other driver than the one that is loaded is in a slot", shown),
        });
    };
    if let Some(misfit) = slot.misfit() {
        let kernel = &slot.manifest.kernel;
        let remedy = format!(
            "boot the kernel {kernel} to go back to it, or install that driver for the kernel that runs"
        );
        return Err(Fault::refused(misfit, remedy));
    }
    has_room(root, &slot)?;
    whole(slot)
}

fn has_room(root: &Root, slot: &Slot) -> Result<()> {
    let version = &slot.manifest.version;
    let what = format!("there is no room to put driver {version} on disk");
    let short = slot.shortages(root).map_err(|error| Fault::refused(&what, "").because(&*error))?;
    if short.is_empty() {
        return Ok(());
    }
    let mut fault = Fault::refused(what, "make room there; nothing was touched");
    fault.causes = short.iter().map(ToString::to_string).collect();
    Err(fault)
}

/// The slot of the driver that is loaded, whole: without it it cannot be rolled back to.
///
/// # Errors
/// There is none, or it is corrupt: nothing was touched.
pub fn of_loaded(root: &Root) -> Result<Slot> {
    let loaded = versions(root)?.loaded;
    let (slots, _) = read(root)?;
    let version = loaded.as_deref().unwrap_or("unknown");
    let reason = match slots.into_iter().find(|slot| slot.manifest.version == version) {
        Some(slot) => match slot.misfit() {
            None => return whole(slot),
            Some(misfit) => misfit,
        },
        None => format!("driver {version}, which is loaded, is in no slot"),
    };
    Err(Fault::refused(
        format!("{reason}: it could not be rolled back to"),
        "`systemctl start nvidia-reload-save-driver.service` saves it, as long as it is installed",
    ))
}

fn whole(slot: Slot) -> Result<Slot> {
    let corrupt = slot.corrupt_files();
    if corrupt.is_empty() {
        return Ok(slot);
    }
    let mut fault = Fault::refused(
        format!("the slot of driver {} is corrupt; nothing was touched", slot.manifest.version),
        "install that driver again by the way it came",
    );
    fault.causes = corrupt;
    Err(fault)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn states_have_the_names_that_docs_json_md_promises() {
        for (state, name) in
            [(State::Whole, "whole"), (State::OtherKernel, "other-kernel"), (State::Corrupt, "spoiled")]
        {
            assert_eq!(serde_json::to_value(state).expect("a name"), name);
        }
    }

    #[test]
    fn a_driver_for_another_kernel_or_without_room_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let slot = root.path(slots::DIRECTORY).join("535.261.03");
        fs::create_dir_all(&slot).expect("creates");
        let choose_one = |kernel: &str, files: &str| {
            let manifest = format!(
                r#"{{"schema": "nvidia-reload.slot/1", "version": "535.261.03", "kernel": "{kernel}",
                    "made_usec": 1, "origin": "names", "packages": [], "files": [{files}]}}"#
            );
            fs::write(slot.join("manifest.json"), manifest).expect("writes");
            choose(&root, Some("535.261.03"))
        };
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("is there");
        assert!(choose_one(release.trim(), "").is_ok());
        let fault = choose_one("1.0-another", "").expect_err("is for another");
        assert!(
            fault.error.contains("for the kernel 1.0-another,") && fault.remedy.contains("boot"),
            "{fault:?}"
        );
        let large = r#"{"kind": "file", "path": "/usr/lib/large", "mode": 420, "uid": 0, "gid": 0,
            "size": 1125899906842624, "modified_nsec": 0, "sha256": ""}"#;
        let fault = choose_one(release.trim(), large).expect_err("no disk has a PiB");
        assert_eq!(fault.error, "there is no room to put driver 535.261.03 on disk");
        assert!(fault.causes[0].contains("MiB free, and 2147483712 are needed"), "{fault:?}");
    }
}
