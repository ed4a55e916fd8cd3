// SPDX-License-Identifier: MIT
//! The GPUs: whether a reload helps them, and what is set on them and would be lost.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use gpu::{Answer, HELPER, Library, Reading, State, ask_state};
use ledger::{Gpu, Setting, Settings};
use modules::{DRIVER, Loaded, Manager, Shadowed, shadowed};
use slots::{HEALED, library_in_slot, version_on_disk};
use step::{Context, Gpus, Root, Versions};

use crate::findings::Findings;
use crate::predict::is_newer;

/// NVML answers at once where the GPUs are awake, and wakes them up one after the other where they
/// are not, each in a second or two.
const TIME: Duration = Duration::from_secs(60);

/// What helps where a reload does not. nvidia-smi, which resets, has to be of the version that is loaded.
pub(crate) fn reset_remedy(versions: &Versions) -> String {
    let reset = "`nvidia-reload reset` stops what uses the GPUs, resets them, and restores everything";
    match (&versions.loaded, &versions.on_disk) {
        (Some(loaded), Some(on_disk)) if loaded != on_disk => format!(
            "reboot the machine, which loads {on_disk}; or install driver {loaded} again: then {reset}"
        ),
        _ => reset.to_owned(),
    }
}

/// Asks NVML, in a process of its own; none if it does not answer. GPUs that were not used since the
/// driver was loaded are not woken up for it: nothing can be set on them.
pub(crate) fn ask(context: &Context, loaded: &[Loaded]) -> Result<Option<State>> {
    let driver = loaded.iter().find(|module| module.module.name == DRIVER);
    let version = driver.and_then(|driver| driver.module.version.as_deref());
    let fallback = version.map(|version| library_in_slot(&context.root, version));
    ask_state(Path::new(HELPER), fallback.as_deref(), true, TIME)
}

/// Looks at what a run would lose of what is set. How the GPUs are is judged in `health`. Returns the GPUs,
/// with all that is to be set again.
pub(crate) fn assess(config: &Gpus, state: Option<State>, findings: &mut Findings) -> Vec<Gpu> {
    let Some(state) = state else {
        findings.refuse(
            format!("NVML did not answer in {} seconds: the driver or a GPU hangs", TIME.as_secs()),
            "`journalctl -k` may show why; if this remains, only a reboot helps",
        );
        return Vec::new();
    };
    answer(&state, findings);
    if state.confidential_computing == Some(true) {
        findings.refuse(
            "confidential computing is on: a reload would end the GPUs' protected sessions",
            "shut down what uses it and turn it off, or change the driver with a reboot",
        );
    }
    let mut gpus = Vec::new();
    for seen in &state.gpus {
        match seen {
            Reading::Ok(gpu) => {
                if !config.allow_pending_changes {
                    pending(gpu, findings);
                }
                unread(gpu, findings);
                gpus.push(with_locked_clocks((**gpu).clone(), config));
            }
            Reading::Trouble { .. } => findings.warn(
                format!("the settings of {seen} cannot be read and will not be restored"),
                "set it again after the run",
            ),
        }
    }
    gpus
}

/// What is to be set on `gpu` again, as the ledger has it.
pub(crate) fn settings(gpu: &Gpu) -> Settings {
    Settings { pci: gpu.pci.clone(), uuid: gpu.uuid.clone(), settings: gpu.settings.clone() }
}

/// A driver without the library of its version is of no use to any program.
///
/// # Errors
/// The modules on disk cannot be read.
pub(crate) fn library(
    root: &Root,
    state: &State,
    versions: &Versions,
    findings: &mut Findings,
) -> Result<()> {
    let version = match &state.library {
        Library::Found { path, version } => version_on_disk(root, path, version.clone())?,
        Library::Absent { .. } => None,
    };
    match (&state.library, &versions.on_disk, version) {
        (Library::Found { path, .. }, Some(on_disk), Some(version)) if version != *on_disk => {
            let remedy = match shadowed(root, &version)? {
                Some(Shadowed { other, .. }) if is_newer(on_disk, &version) => format!(
                    "{} and {} are left of driver {version}: remove them (`nvidia-uninstall`, where NVIDIA's installer brought them) and run `ldconfig`",
                    other.display(),
                    path.display()
                ),
                Some(Shadowed { taken, other, remedy }) => format!(
                    "{} is of {version}, and modprobe takes {}: {remedy}",
                    other.display(),
                    taken.display()
                ),
                None => {
                    format!("modules and libraries have to be of one version: {}", Manager::of(root).finish())
                }
            };
            let what = match path.starts_with(HEALED) {
                true => "the libraries on disk are".to_owned(),
                false => format!("{} is", path.display()),
            };
            findings
                .refuse(format!("{what} of version {version}, the modules on disk are of {on_disk}"), remedy);
        }
        (Library::Found { .. }, ..) => {}
        (Library::Absent { reason }, ..) => findings.warn(
            format!("NVIDIA's libraries are not installed: {reason}"),
            "install them if programs are to use the GPU",
        ),
    }
    Ok(())
}

fn answer(state: &State, findings: &mut Findings) {
    let lost = "what is set on the GPUs (persistence, power limits, clocks, MIG instances) cannot be read and will not be restored";
    match &state.nvml {
        Answer::Mismatch => findings.warn(
            format!("{lost}: no slot has the NVML library of the loaded driver"),
            "set it again after the reload",
        ),
        Answer::Failed { reason } => {
            findings.warn(format!("{lost}: NVML does not start: {reason}"), "set it again after the reload");
        }
        // That the driver or the library is missing is said elsewhere.
        Answer::Ok { .. } | Answer::Asleep | Answer::NotLoaded | Answer::NoLibrary { .. } => {}
    }
}

/// Changes that wait for the next load, and would come unasked.
fn pending(gpu: &Gpu, findings: &mut Findings) {
    for (what, mode) in [("ECC", gpu.health.ecc), ("MIG", gpu.health.mig)] {
        let Some(mode) = mode.filter(|mode| mode.current != mode.pending) else { continue };
        let word = |on| if on { "on" } else { "off" };
        findings.refuse(
            format!(
                "{what} mode of {gpu} is {}, and would be {} after the reload: a change is pending",
                word(mode.current),
                word(mode.pending)
            ),
            "take the change back, or set gpus.allow-pending-changes = true",
        );
    }
}

/// What cannot be set again since NVML did not tell.
fn unread(gpu: &Gpu, findings: &mut Findings) {
    for what in &gpu.unread {
        findings.warn(
            format!("NVML does not report everything about {gpu}: {what}"),
            "see whether it is as it should be after the reload",
        );
    }
    if gpu.health.remapped_rows.is_some_and(|rows| rows.failure) {
        findings.warn(
            format!("the remapping of a row of memory of {gpu} has failed"),
            "have the card replaced; a reload does not fix that",
        );
    }
}

/// NVML cannot read locked clocks: they come from the configuration.
fn with_locked_clocks(mut gpu: Gpu, config: &Gpus) -> Gpu {
    let locked = config.locked_clocks(&gpu.uuid);
    for (memory, clocks) in [(false, locked.locked_gpu_clocks), (true, locked.locked_memory_clocks)] {
        if let Some((lowest, highest)) = clocks {
            gpu.settings.push(Setting::LockedClocks { memory, lowest, highest });
        }
    }
    gpu
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Health, Mode};
    use step::Verdict;

    fn gpu(health: Health) -> Gpu {
        Gpu {
            index: 0,
            pci: "0000:01:00.0".into(),
            uuid: "GPU-a".into(),
            name: String::new(),
            health,
            settings: Vec::new(),
            unread: Vec::new(),
        }
    }

    fn verdict(judge: impl FnOnce(&mut Findings)) -> (Verdict, usize) {
        let mut findings = Findings::default();
        judge(&mut findings);
        let (verdict, _, warnings) = findings.verdict();
        (verdict, warnings.len())
    }

    #[test]
    fn where_no_reset_can_be_none_is_advised() {
        let versions = |on_disk: &str| Versions { loaded: Some("1".into()), on_disk: Some(on_disk.into()) };
        assert!(reset_remedy(&versions("1")).starts_with("`nvidia-reload reset`"));
        assert!(reset_remedy(&versions("2")).starts_with("reboot the machine, which loads 2; or install"));
    }

    #[test]
    fn a_pending_change_is_a_refusal() {
        for (pending, expected) in [(true, Verdict::Ready), (false, Verdict::Refused)] {
            let mig = Some(Mode { current: true, pending });
            let gpu = gpu(Health { mig, ..Health::default() });
            assert_eq!(verdict(|findings| super::pending(&gpu, findings)).0, expected);
        }
    }
}
