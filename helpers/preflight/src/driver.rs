//! The driver: what is loaded, what is on disk, and whether the one can take the other's place.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use gpu::{Library, State as NvmlState};
use modules::{DRIVER, Disk, File, Loaded, State, gate, out_of_reach};
use slots::slots;
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
    container_managed(&context.root, findings)?;
    let version = driver.and_then(|driver| driver.module.version.clone());
    if let Some(exchange) = exchange {
        // What is on disk may be what this is to mend; it goes with the exchange.
        predict::room(&context.root, &[], findings)?;
        way_back(context, loaded, &[], findings)?;
        return Ok(Versions { loaded: version, on_disk: Some(exchange.to_owned()) });
    }
    let disk = Disk::open_thoroughly(&context.root)?;
    let files = predict::assess(context, &disk, loaded, findings)?;
    let versions = Versions {
        loaded: version,
        on_disk: match files.iter().find(|file| file.name == DRIVER) {
            Some(file) => file.version.clone(),
            // One that cannot be read was told of.
            None if driver.is_some() => None,
            None => disk.find(DRIVER)?.and_then(|file| file.version),
        },
    };
    way_back(context, loaded, &files, findings)?;
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

/// Judges whether the driver that is installed has modules for the running kernel.
///
/// # Errors
/// What is loaded or on disk cannot be read.
pub(crate) fn reach(root: &Root, state: Option<&NvmlState>, findings: &mut Findings) -> Result<()> {
    let library = match state.map(|state| &state.library) {
        Some(Library::Found { version, .. }) => version.as_deref(),
        _ => None,
    };
    if let Some(reason) = out_of_reach(root, library)? {
        findings.reboot(reason.what, reason.remedy);
    }
    Ok(())
}

/// A driver that lives in a container is loaded and unloaded by that container. Folders alone say nothing:
/// what the GPU operator runs on hosts with a driver of their own makes them and leaves them empty, and so does
/// a driver that is gone.
fn container_managed(root: &Root, findings: &mut Findings) -> Result<()> {
    let (top, path) = (root.path("/"), root.path("/run/nvidia/driver"));
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    // A link to the host's own root says that the driver is the host's.
    let is_hosts = identity(&path).is_some_and(|driver| identity(&top) == Some(driver));
    if !is_hosts && holds_files(&path)? {
        findings.refuse(
            "/run/nvidia/driver holds a driver: it is managed from a container",
            "let the GPU operator change it",
        );
    }
    Ok(())
}

/// Whether there is anything but folders below `top`. A driver's root has files near its top.
fn holds_files(top: &Path) -> Result<bool> {
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Gone meanwhile, or never there.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("look into {}", folder.display())),
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("look into {}", folder.display()))?;
            let kind = entry.file_type().with_context(|| format!("look at {}", entry.path().display()))?;
            if !kind.is_dir() || folders.len() >= MOST_FOLDERS {
                return Ok(true);
            }
            folders.push(entry.path());
        }
    }
    Ok(false)
}

/// More folders than these are no remains.
const MOST_FOLDERS: usize = 1000;

/// Whether the loaded driver could serve again, should the one on disk not.
fn way_back(context: &Context, loaded: &[Loaded], files: &[File], findings: &mut Findings) -> Result<()> {
    let mut lost: Vec<&Loaded> =
        loaded.iter().filter(|module| !files.iter().any(|file| file.is(&module.module))).collect();
    if !lost.is_empty() {
        let kept = slots(&context.root)?;
        lost.retain(|module| !kept.iter().any(|slot| slot.find(&module.module).is_some()));
    }
    if !lost.is_empty() {
        let lost: Vec<&str> = lost.iter().map(|module| module.module.name.as_str()).collect();
        findings.warn(
            format!("no copy of the loaded {} is kept: should the new driver fail, the old one cannot come back", lost.join(", ")),
            "install the old version again and run `systemctl start nvidia-reload-keep.service`, if that must not be",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ledger::{Ledger, Outcome, Snapshot, Step};

    use step::Verdict;

    use super::*;

    #[test]
    fn empty_folders_of_an_operator_that_is_gone_are_no_driver() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let verdict = || {
            let mut findings = Findings::default();
            container_managed(&root, &mut findings).expect("looks");
            findings.verdict().0
        };
        assert_eq!(verdict(), Verdict::Ready, "it is not there");
        for folder in ["", "/dev", "/usr/bin", "/lib/modules/6.1"] {
            fs::create_dir_all(root.path(format!("/run/nvidia/driver{folder}"))).expect("creates");
            assert_eq!(verdict(), Verdict::Ready, "{folder}");
        }
        fs::write(root.path("/run/nvidia/driver/usr/bin/nvidia-smi"), "").expect("writes");
        assert_eq!(verdict(), Verdict::Refused);
        fs::remove_dir_all(root.path("/run/nvidia/driver")).expect("removes");
        std::os::unix::fs::symlink(directory.path(), root.path("/run/nvidia/driver")).expect("links");
        fs::write(root.path("/file"), "").expect("writes");
        assert_eq!(verdict(), Verdict::Ready, "the host's own");
    }

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
