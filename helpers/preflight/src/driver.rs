// SPDX-License-Identifier: MIT
//! The driver: what is loaded, what is on disk, and whether the one can take the other's place.

use anyhow::Result;
use gpu::{Library, State as NvmlState};
use modules::{DRIVER, Disk, File, Loaded, State, cannot_unload, gate, managed_by_container, out_of_reach};
use slots::{slots, version_on_disk};
use step::{Context, Root, Versions};

use crate::findings::Findings;
use crate::predict;

/// Judges the driver; what is on disk only where the run puts no other version there.
///
/// # Errors
/// Something that has to be known cannot be.
pub(crate) fn assess(
    context: &Context,
    loaded: &[Loaded],
    exchange: Option<&str>,
    findings: &mut Findings,
) -> Result<Versions> {
    for module in loaded {
        match module.state {
            State::Live => {}
            State::Going => findings.reboot(
                format!("{} is stuck on its way out of the kernel", module.module.name),
                "reboot the machine",
            ),
            State::Coming => findings.refuse(
                format!("{} is still being loaded", module.module.name),
                "wait until it is; if it never is, reboot the machine",
            ),
        }
    }
    let driver = loaded.iter().find(|module| module.module.name == DRIVER);
    if driver.is_none() {
        findings.refuse("the NVIDIA driver is not loaded, there is nothing to reload", remedy(context)?);
    }
    if loaded.iter().any(|module| module.module.name == "nvidia_vgpu_vfio") {
        findings.refuse(
            "nvidia_vgpu_vfio is loaded: the virtual GPUs of this vGPU host would vanish under their machines",
            "move or shut down the virtual machines, and change the driver with a reboot",
        );
    }
    let version = driver.and_then(|driver| driver.module.version.clone());
    if let Some(reason) = managed_by_container(&context.root)? {
        findings.refuse(reason.what, reason.remedy);
        // The host's disk has none to judge.
        return Ok(Versions { loaded: version, on_disk: None });
    }
    if let Some(exchange) = exchange {
        // What is on disk may be what this is to fix; it goes with the exchange.
        predict::room(&context.root, &[], findings)?;
        slot_of_loaded(context, loaded, &[], findings)?;
        return Ok(Versions { loaded: version, on_disk: Some(exchange.to_owned()) });
    }
    let disk = Disk::open_thoroughly(&context.root)?;
    let files = predict::assess(context, &disk, loaded, findings)?;
    let versions = Versions {
        loaded: version,
        on_disk: match files.iter().find(|file| file.name == DRIVER) {
            Some(file) => file.version.clone(),
            // One that cannot be read was reported.
            None if driver.is_some() => None,
            None => disk.find(DRIVER)?.and_then(|file| file.version),
        },
    };
    slot_of_loaded(context, loaded, &files, findings)?;
    Ok(versions)
}

/// What loads a driver that is not loaded: not modprobe, where our own gate keeps it out.
fn remedy(context: &Context) -> Result<String> {
    if !gate::is_shut(&context.root)? {
        // A file that cannot be read is there.
        let is_there = !matches!(Disk::open(&context.root)?.find(DRIVER), Ok(None));
        return Ok(match is_there {
            true => "`modprobe nvidia` loads it",
            false => "install the driver",
        }
        .into());
    }
    Ok(match context.ledger.read() {
        Ok(None) => format!(
            "no run is open, and a gate is left of one: remove {} and {}; then `modprobe nvidia` loads it",
            gate::FILE,
            gate::BUSY
        ),
        // Which it is, the open run tells, which is a reason of its own.
        Ok(Some(_)) | Err(_) => {
            "the open run keeps it out: `nvidia-reload start` loads it on an offline machine, \
                                 `nvidia-reload recover` ends an interrupted run"
                .into()
        }
    })
}

/// Judges whether the kernel can unload the driver, and whether the one that is installed has modules for it.
///
/// # Errors
/// What is loaded or on disk cannot be read.
pub(crate) fn reach(root: &Root, state: Option<&NvmlState>, findings: &mut Findings) -> Result<()> {
    if let Some(reason) = cannot_unload(root)? {
        findings.reboot(reason.what, reason.remedy);
        return Ok(());
    }
    let library = match state.map(|state| &state.library) {
        Some(Library::Found { path, version }) => version_on_disk(root, path, version.clone())?,
        _ => None,
    };
    if let Some(reason) = out_of_reach(root, library.as_deref())? {
        findings.reboot(reason.what, reason.remedy);
    }
    Ok(())
}

/// Whether the loaded driver could serve again, should the one on disk not.
fn slot_of_loaded(
    context: &Context,
    loaded: &[Loaded],
    files: &[File],
    findings: &mut Findings,
) -> Result<()> {
    let mut lost: Vec<&Loaded> =
        loaded.iter().filter(|module| !files.iter().any(|file| file.is(&module.module))).collect();
    if !lost.is_empty() {
        let saved = slots(&context.root)?;
        lost.retain(|module| !saved.iter().any(|slot| slot.find(&module.module).is_some()));
    }
    if !lost.is_empty() {
        let lost: Vec<&str> = lost.iter().map(|module| module.module.name.as_str()).collect();
        findings.warn(
            format!("no slot has the loaded {}: if the new driver fails, a rollback is not possible", lost.join(", ")),
            "install the old version again and run `systemctl start nvidia-reload-save-driver.service`, if that must not be",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ledger::{Ledger, Outcome, Snapshot, Step};

    use super::*;

    #[test]
    fn modprobe_is_no_remedy_where_our_own_gate_refuses_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let ledger = Ledger::new(root.path("/var/lib/nvidia-reload"), "boot");
        let context = Context { step: Step::Preflight, root: root.clone(), ledger };
        assert_eq!(remedy(&context).expect("looks"), "install the driver");
        gate::shut(&root, &BTreeSet::from(["nvidia".to_owned()])).expect("shuts");
        context.ledger.open(Snapshot::default()).expect("opens");
        let with_run = remedy(&context).expect("looks");
        assert!(with_run.contains("nvidia-reload start") && !with_run.contains("modprobe"), "{with_run}");
        context.ledger.close(Outcome::Degraded).expect("closes");
        let without = remedy(&context).expect("looks");
        assert!(without.starts_with("no run is open") && without.contains(gate::FILE), "{without}");
        gate::open(&root).expect("opens");
        assert_eq!(remedy(&context).expect("looks"), "install the driver");
    }
}
