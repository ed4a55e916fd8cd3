// SPDX-License-Identifier: MIT
//! Whether the loaded driver's libraries can be found, and should.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bus::{ActiveState, LoadState, Manager};
use gpu::{HELPER, Library, Question, ask_helper};
use modules::{Disk, File, driver_version, loaded};
use nix::sys::statvfs::FsFlags;
use serde::Serialize;
use slots::{HEALED, Healed, Slot, lacks, slots};
use step::{Config, Exit, Heal, OFF, Reason, Root, is_switched_off, open_ledger};

use crate::mount_flags;

/// The format of what is printed.
const SCHEMA: &str = "nvidia-reload.heal/1";

/// The linker needs milliseconds.
const LINKER: Duration = Duration::from_secs(30);

/// Without it no CUDA program starts; who starts the first one loads it.
const UVM: &str = "nvidia_uvm";

/// Services that put GPUs into a fabric. Each has to be of the loaded driver's version.
const FABRIC: [&str; 3] = ["nvidia-fabricmanager.service", "nvlsm.service", "nvidia-imex.service"];

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It can be done.
    Possible,
    /// It is done.
    Healed,
    /// The libraries on disk are the loaded driver's.
    NotNeeded,
    /// It cannot be done, or must not.
    Refused,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    schema: &'static str,
    /// How it stands.
    pub(crate) state: State,
    /// The loaded driver.
    pub(crate) version: Option<String>,
    /// The libraries that the linker finds now.
    pub(crate) instead_of: Option<String>,
    /// Why not.
    reasons: Vec<Reason>,
    /// The driver of the libraries.
    #[serde(skip)]
    pub(crate) slot: Option<Slot>,
    /// A module that has to be loaded from there.
    #[serde(skip)]
    pub(crate) load: Option<File>,
    /// What would be done, in sentences without their end.
    does: Vec<String>,
}

impl Judged {
    /// The exit status for it.
    pub(crate) fn exit(&self) -> Exit {
        if self.state == State::Refused { Exit::Refused } else { Exit::Done }
    }

    /// In a sentence without its end.
    pub(crate) fn text(&self) -> String {
        let version = self.version.as_deref().unwrap_or("unknown");
        match self.state {
            State::Possible => format!("the libraries of driver {version} can be found"),
            State::Healed => format!("the libraries of driver {version} are found already"),
            State::NotNeeded => {
                format!("the libraries on disk are those of driver {version}, which is loaded")
            }
            State::Refused => {
                let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
                reasons.join("; ")
            }
        }
    }
}

/// The NVML library that the linker finds, with its version; none where there is none.
pub(crate) fn library() -> Result<Option<(PathBuf, Option<String>)>> {
    let found =
        ask_helper(Path::new(HELPER), Question::Library, LINKER)?.context("the linker does not answer")?;
    Ok(match found {
        Library::Found { path, version } => Some((path, version)),
        Library::Absent { .. } => None,
    })
}

/// Looks. Changes nothing.
///
/// # Errors
/// What has to be known cannot be read.
pub(crate) fn judge(root: &Root) -> Result<Judged> {
    let mut judged = Judged {
        schema: SCHEMA,
        state: State::Refused,
        version: driver_version(root)?,
        instead_of: None,
        reasons: Vec::new(),
        slot: None,
        load: None,
        does: Vec::new(),
    };
    let mut reasons = Vec::new();
    let mut refuse = |what: String, remedy: &str| reasons.push(Reason::new(what, remedy));
    let Some(version) = judged.version.clone() else {
        refuse("the driver is not loaded".into(), "nothing is to be healed: load the driver on disk");
        judged.reasons = reasons;
        return Ok(judged);
    };
    let found = library()?;
    let is_ours = found.as_ref().is_some_and(|(path, _)| path.starts_with(HEALED));
    let linked = found.and_then(|(_, version)| version);
    let healed = Healed::read(root)?;
    if linked.as_ref() == Some(&version) {
        judged.state = if is_ours { State::Healed } else { State::NotNeeded };
        // Written down and not in effect: it is done once more.
        if healed.is_some() || !is_ours {
            return Ok(judged);
        }
    }
    judged.instead_of = if is_ours { healed.and_then(|healed| healed.instead_of) } else { linked };
    if is_switched_off(root)? {
        refuse(format!("{OFF} is on the kernel command line"), "boot without it");
    }
    if Config::load(root)?.upgrade.heal == Heal::Never {
        refuse("upgrade.heal is \"never\" in the configuration".into(), "set upgrade.heal to \"ask\"");
    }
    if let Some(run) = open_ledger(root)?.read()? {
        refuse(format!("run {} is open", run.id), "wait until it has ended");
    }
    place(root, &mut refuse)?;
    fabric(&mut refuse)?;
    match slots(root)?.into_iter().find(|slot| slot.manifest.version == version) {
        None => refuse(
            format!("driver {version} is loaded, and not in any slot"),
            &format!("reload; or install driver {version} again"),
        ),
        Some(slot) => {
            let corrupt = slot.corrupt_files();
            if !corrupt.is_empty() {
                refuse(format!("the slot of driver {version} is damaged: {}", corrupt.join("; ")), "reload");
            } else if let Some(lacks) = lacks(root, &slot)? {
                refuse(lacks, "reload");
            } else {
                module(root, &slot, &mut judged, &mut refuse)?;
                judged.slot = Some(slot);
            }
        }
    }
    judged.state = if reasons.is_empty() { State::Possible } else { State::Refused };
    judged.reasons = reasons;
    if judged.state == State::Possible {
        let other = judged.instead_of.as_deref().unwrap_or("none");
        judged.does.insert(
            0,
            format!("programs that start find the libraries of driver {version} instead of {other}"),
        );
    }
    Ok(judged)
}

/// Whether libraries can be run from our folder, and the linker be given the folder.
fn place(root: &Root, refuse: &mut impl FnMut(String, &str)) -> Result<()> {
    let (ours, linker) = (root.path(ledger::DIRECTORY), root.path("/etc/ld.so.conf.d"));
    if mount_flags(&ours)?.contains(FsFlags::ST_NOEXEC) {
        refuse(
            format!("{} is mounted noexec: no program can map a library there", ours.display()),
            "mount it without noexec",
        );
    }
    if !linker.is_dir() {
        refuse(format!("there is no {}: this linker has no such configuration", linker.display()), "reload");
    } else if mount_flags(&linker)?.contains(FsFlags::ST_RDONLY) {
        refuse(format!("{} is read-only", linker.display()), "make it writable, or reload");
    }
    // /sys/fs/selinux/enforce (selinux(8)): confined programs may not map what has no library's label.
    if std::fs::read_to_string(root.path("/sys/fs/selinux/enforce")).is_ok_and(|text| text.trim() == "1") {
        refuse("SELinux is enforced, and libraries in our folder have no library's label".into(), "reload");
    }
    Ok(())
}

/// Services of a fabric that failed because of the mismatch do not come up for the old libraries: their programs are of the
/// version on disk.
fn fabric(refuse: &mut impl FnMut(String, &str)) -> Result<()> {
    let manager = Manager::system()?;
    for name in FABRIC {
        let standing = manager.standing(name)?;
        let unit = &standing.unit;
        let failed = unit.active == ActiveState::Failed
            || (unit.active == ActiveState::Activating && standing.restarts > 0);
        if unit.load == LoadState::Loaded && failed {
            refuse(
                format!("{name} does not run, and its program is not of the loaded driver's version"),
                "reload",
            );
        }
    }
    Ok(())
}

/// The module that programs load, where it is not loaded: from disk it would be the other driver's.
fn module(
    root: &Root,
    slot: &Slot,
    judged: &mut Judged,
    refuse: &mut impl FnMut(String, &str),
) -> Result<()> {
    let version = &slot.manifest.version;
    if loaded(root, UVM)?.is_some() {
        return Ok(());
    }
    // A file that is damaged fits no driver.
    let on_disk = Disk::open(root)?.find(UVM).ok().flatten();
    if on_disk.is_some_and(|file| file.version.as_ref() == Some(version)) {
        return Ok(());
    }
    match (slot.named(UVM), slot.misfit()) {
        (Some(file), None) => {
            judged.does.push(format!("{UVM} of driver {version} is loaded from its slot"));
            judged.load = Some(file);
        }
        (_, Some(misfit)) => refuse(format!("{UVM} is not loaded, and {misfit}"), "reload"),
        (None, None) => {
            refuse(format!("{UVM} is not loaded, and not in the slot of driver {version}"), "reload");
        }
    }
    Ok(())
}
