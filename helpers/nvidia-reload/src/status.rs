// SPDX-License-Identifier: MIT
//! What is: the driver, the GPUs, what holds them, what was done last.

mod model;

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{ActiveState, Manager};
use gpu::{Answer, Memory};
use holders::Scan;
use ledger::{Run, Step};
use modules::gate;
use step::{Reason, Root, Versions};

use crate::expected::measured;
use crate::fault::{Fault, Result};
use crate::gpus::look;
use crate::names;
use crate::put_back::PutBack;
use crate::target::Target;
use crate::users::Users;

pub use model::{AtWork, Driver, Gate, Gpu, Initramfs, Refusal, RunInShort, Runs, State, Status};

/// The name and version of the JSON.
pub const SCHEMA: &str = "nvidia-reload.status/1";

/// How long NVML is waited for: somebody looks at the screen.
const NVML_TIME: Duration = Duration::from_secs(5);

/// Looks at the machine. What cannot be seen is said in `unseen`; nothing is changed.
///
/// # Errors
/// What every user can read cannot be read.
pub fn status(root: &Root) -> Result<Status> {
    let mut scan = holders::scan(root).map_err(|error| {
        Fault::new(step::Exit::Failed, "cannot look for who holds the driver", "").because(&error)
    })?;
    let busy = root.path(gate::BUSY);
    let gate = Gate { shut: gate::is_shut(root)?, busy: busy.exists() };
    let (mut driver, disk_unseen) = driver(root)?;
    // After the scan: what asks NVML holds the driver.
    let looked = look(root, !gate.busy && driver.loaded.is_some(), NVML_TIME);
    // NVML holds the driver while it is asked: not in the middle of a run; and it wakes up GPUs that sleep.
    let ask = matches!(looked.nvml.as_ref().map(|state| &state.nvml), Some(Answer::Ok { .. }));
    let (memory, nvml_unseen) = if ask { usage(root, &mut scan) } else { (Vec::new(), Vec::new()) };
    let gpus = looked
        .needs()
        .into_iter()
        .map(|need| {
            let detail = need.pci.as_deref().map(|pci| looked.detail(root, pci, &memory)).unwrap_or_default();
            Gpu { need, detail }
        })
        .collect();
    driver.library = match looked.nvml.as_ref().map(|state| &state.library) {
        Some(gpu::Library::Found { version, .. }) => version.clone(),
        _ => None,
    };
    let Scan { modules, holders, consoles, unexplained, mut unseen, .. } = scan;
    unseen.extend(nvml_unseen);
    unseen.extend(looked.trouble.iter().chain(&looked.unseen).map(|what| sentence(what)));
    unseen.extend(disk_unseen);
    driver.out_of_reach = out_of_reach(root).unwrap_or_else(|error| {
        unseen.push(format!("Whether the driver is installed for this kernel: {error:#}."));
        None
    });
    if modules.is_empty() && driver.present {
        unseen.push("The driver's modules: they are loaded, and cannot be read.".to_owned());
    }
    let container_names = names::of(root, &holders);
    let (mut runs, ledger_unseen) = runs(root)?;
    unseen.extend(ledger_unseen);
    let put_back = PutBack::read(root).unwrap_or_else(|error| {
        unseen.push(format!("Whether a driver was put back: {error:#}."));
        None
    });
    let request = request::read(root).unwrap_or_else(|error| {
        unseen.push(match is_denied(&error) {
            true => "A request for a reload: only root may read it.".to_owned(),
            false => format!("A request for a reload: {error:#}."),
        });
        None
    });
    let initramfs = stale_initramfs(root, &mut unseen).unwrap_or_else(|error| {
        unseen.push(format!("What the initramfs holds: {error:#}."));
        None
    });
    let healed = slots::Healed::read(root).unwrap_or_else(|error| {
        unseen.push(format!("Whether the driver is healed: {error:#}."));
        None
    });
    let lease = fleetlock::read(root).unwrap_or_else(|error| {
        unseen.push(format!("The lease of the fleet lock: {error:#}."));
        None
    });
    match Refusal::read(root) {
        Ok(refused) => {
            let last = runs.last.as_ref().map_or(0, |run| run.last_usec);
            runs.refused = refused.filter(|refused| refused.usec > last && runs.open.is_none());
        }
        // The runs are said not to be seen.
        Err(error) if is_denied(&error) => {}
        Err(error) => unseen.push(format!("Whether a run was refused: {error:#}.")),
    }
    let mut at_work = None;
    let units = match Manager::system().and_then(|manager| Ok((our_units(&manager)?, manager))) {
        Ok((units, manager)) => {
            at_work = self::at_work(&manager, &units).unwrap_or_else(|error| {
                unseen.push(format!("The step that is at work: {error}."));
                None
            });
            Some(units)
        }
        Err(error) => {
            unseen.push(format!("The state of the targets: {error}."));
            None
        }
    };
    let targets = units.as_ref().map(|units| {
        Target::ALL
            .into_iter()
            .map(|target| (target.unit(), state_of(units, target.unit()).to_string()))
            .collect()
    });
    Ok(Status {
        schema: SCHEMA,
        driver,
        state: units.as_ref().map_or(State::Unknown, state),
        targets,
        gate,
        modules,
        gpus,
        holders,
        consoles,
        unexplained,
        unseen,
        runs,
        put_back,
        healed,
        lease,
        request,
        initramfs,
        at_work,
        container_names,
        users: Users::read(root),
    })
}

/// The step that is at work.
fn at_work(manager: &Manager, units: &Units) -> std::result::Result<Option<AtWork>, bus::Error> {
    let is_busy = |step: &Step| {
        matches!(state_of(units, &step.unit()), ActiveState::Activating | ActiveState::Deactivating)
    };
    let Some(step) = Step::ALL.into_iter().chain([Step::GpuReset, Step::Rollback]).find(is_busy) else {
        return Ok(None);
    };
    let jobs = manager.jobs()?;
    let target =
        Target::ALL.into_iter().map(Target::unit).find(|unit| jobs.iter().any(|job| job.unit == *unit));
    Ok(Some(AtWork { step, says: manager.service(&step.unit())?.status_text, target }))
}

/// `what` as the sentence that it is.
fn sentence(what: &str) -> String {
    let mut letters = what.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

/// Adds the GPU memory of each process that NVML lists; returns that of the GPUs, and what it could not tell, in
/// sentences.
fn usage(root: &Root, scan: &mut Scan) -> (Vec<Memory>, Vec<String>) {
    let unseen = match gpu::ask_helper(&root.path(gpu::HELPER), gpu::Question::Usage, NVML_TIME) {
        Ok(Some(gpu::Usage::Ok { processes, memory, problems })) => {
            let list: Vec<(i32, Option<u64>)> =
                processes.iter().map(|used| (used.pid, used.memory)).collect();
            let mut unseen = problems;
            for pid in scan.add_gpu_memory(&list) {
                unseen.push(format!("NVML lists process {pid}, which was not seen to hold a device."));
            }
            return (memory, unseen);
        }
        // Of another version than the driver, for instance: the versions are shown anyway.
        Ok(Some(gpu::Usage::No { reason })) => vec![format!("GPU memory: NVML says \"{reason}\".")],
        Ok(None) => vec![format!("GPU memory: NVML did not answer in {} seconds.", NVML_TIME.as_secs())],
        Err(error) => vec![format!("GPU memory: {error:#}.")],
    };
    (Vec::new(), unseen)
}

/// What was seen last in the initramfs: to read it takes seconds, and root.
fn stale_initramfs(root: &Root, unseen: &mut Vec<String>) -> anyhow::Result<Option<Initramfs>> {
    let release = modules::release(root)?;
    let archives = initramfs::archives(root, &release)?;
    if archives.is_empty() {
        unseen.push(format!("What the initramfs holds: {}.", initramfs::not_found(&release)));
    }
    for archive in archives {
        let Some(seen) = initramfs::seen(root, &archive)? else { continue };
        let stale = seen.stale(&modules::Disk::open(root)?)?;
        if !stale.is_empty() {
            let remedy = initramfs::maker(root, &archive, &release).map(|words| words.join(" "));
            return Ok(Some(Initramfs { archive: archive.display().to_string(), stale, remedy }));
        }
    }
    Ok(None)
}

/// The driver's versions, and why one of them is not known.
fn driver(root: &Root) -> Result<(Driver, Option<String>)> {
    let loaded = modules::driver_version(root)?;
    let found = modules::Disk::open(root).and_then(|disk| disk.find(modules::DRIVER));
    let (on_disk, unseen) = match found {
        Ok(file) => (file.and_then(|file| file.version), None),
        Err(error) => (None, Some(format!("The driver on disk: {error:#}."))),
    };
    let mismatch = match (&loaded, &on_disk) {
        (Some(loaded), Some(on_disk)) => Some(loaded != on_disk),
        _ => None,
    };
    let present = root.path("/sys/module").join(modules::DRIVER).exists();
    Ok((Driver { loaded, on_disk, mismatch, present, ..Driver::default() }, unseen))
}

fn out_of_reach(root: &Root) -> anyhow::Result<Option<Reason>> {
    if let Some(reason) = modules::cannot_unload(root)? {
        return Ok(Some(reason));
    }
    let library = match gpu::ask_helper(&root.path(gpu::HELPER), gpu::Question::Library, NVML_TIME)? {
        Some(gpu::Library::Found { path, version }) => slots::version_on_disk(root, &path, version)?,
        _ => None,
    };
    modules::out_of_reach(root, library.as_deref())
}

/// The driver's versions as a plan has them.
///
/// # Errors
/// The loaded version cannot be read.
pub fn versions(root: &Root) -> Result<Versions> {
    let (driver, _) = driver(root)?;
    Ok(Versions { loaded: driver.loaded, on_disk: driver.on_disk })
}

fn runs(root: &Root) -> Result<(Runs, Option<String>)> {
    let ledger = step::open_ledger(root)?;
    let both = ledger.read().and_then(|open| Ok((open, ledger.last_closed()?)));
    match both {
        Ok((open, last)) => {
            let short = |run: Option<Run>| {
                run.as_ref().map(|run| RunInShort { took: measured(root, run), ..RunInShort::from(run) })
            };
            Ok((Runs { visible: true, open: short(open), last: short(last), refused: None }, None))
        }
        Err(error) => {
            let why = match is_denied(&error) {
                true => "The runs so far: only root may read the ledger.".to_owned(),
                false => format!("The runs so far: {error:#}."),
            };
            Ok((Runs::default(), Some(why)))
        }
    }
}

pub(crate) fn is_denied(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The states of our units that systemd has in memory; the others are inactive.
pub type Units = BTreeMap<String, ActiveState>;

/// The states of our targets and steps.
///
/// # Errors
/// systemd does not answer.
pub fn our_units(manager: &Manager) -> std::result::Result<Units, bus::Error> {
    let mut names: Vec<String> = Target::ALL.into_iter().map(|target| target.unit().to_owned()).collect();
    names.extend(Step::ALL.into_iter().chain([Step::GpuReset, Step::Rollback]).map(Step::unit));
    let patterns: Vec<&str> = names.iter().map(String::as_str).collect();
    let listed = manager.units(&patterns)?;
    Ok(listed.into_iter().map(|unit| (unit.name, unit.active)).collect())
}

/// Whether `target` is about to be reached.
///
/// # Errors
/// systemd does not answer.
pub fn is_started(manager: &Manager, target: Target) -> std::result::Result<bool, bus::Error> {
    Ok(manager.jobs()?.iter().any(|job| job.unit == target.unit() && job.kind == "start"))
}

/// The state of one of them.
pub fn state_of(units: &Units, name: &str) -> ActiveState {
    units.get(name).cloned().unwrap_or(ActiveState::Inactive)
}

/// What the machine is doing.
pub fn state(units: &Units) -> State {
    let of = |target: Target| state_of(units, target.unit());
    let mut steps = Step::ALL
        .into_iter()
        .chain([Step::GpuReset, Step::Rollback])
        .map(|step| state_of(units, &step.unit()));
    if steps.clone().any(|state| state == ActiveState::Activating) {
        return State::Busy;
    }
    if steps.clone().any(|state| state == ActiveState::Deactivating) {
        return State::Restoring;
    }
    match () {
        () if of(Target::Offline) == ActiveState::Active => State::Offline,
        () if of(Target::Drained) == ActiveState::Active => State::Drained,
        // Between two steps.
        () if steps.any(|state| state.is_up()) => State::Busy,
        () => State::InService,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn units(of: &[(&str, ActiveState)]) -> Units {
        of.iter().map(|(name, state)| ((*name).to_owned(), state.clone())).collect()
    }

    #[test]
    fn the_state_is_that_of_the_units() {
        use ActiveState::{Activating, Active, Deactivating};
        let preflight = &Step::Preflight.unit();
        let drain = &Step::DrainContainers.unit();
        for (of, expected) in [
            (units(&[]), State::InService),
            (units(&[(preflight, Activating)]), State::Busy),
            (units(&[(preflight, Active)]), State::Busy),
            (units(&[(preflight, Active), (drain, Deactivating)]), State::Restoring),
            (units(&[(preflight, Active), ("nvidia-drained.target", Active)]), State::Drained),
            (
                units(&[
                    (preflight, Active),
                    ("nvidia-drained.target", Active),
                    ("nvidia-offline.target", Active),
                ]),
                State::Offline,
            ),
            (units(&[("nvidia-reload-rollback.service", Activating)]), State::Busy),
        ] {
            assert_eq!(state(&of), expected, "{of:?}");
        }
    }

    #[test]
    fn states_have_the_names_that_docs_json_md_promises() {
        let names = [
            (State::InService, "in-service"),
            (State::Busy, "busy"),
            (State::Restoring, "giving-back"),
            (State::Drained, "drained"),
            (State::Offline, "offline"),
            (State::Unknown, "unknown"),
        ];
        for (state, name) in names {
            assert_eq!(serde_json::to_value(state).expect("a name"), name);
        }
    }

    #[test]
    fn a_machine_without_the_driver_has_a_status() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for (path, text) in [
            ("/proc/modules", ""),
            ("/proc/devices", "Character devices:\n"),
            ("/proc/sys/kernel/random/boot_id", "b\n"),
        ] {
            let path = root.path(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
            fs::write(path, text).expect("writes");
        }
        fs::create_dir_all(root.path("/sys/module")).expect("creates");
        let status = status(&root).expect("looks");
        assert_eq!(status.driver, Driver::default());
        assert!(status.holders.is_empty() && status.runs.visible && !status.gate.shut);
    }
}
