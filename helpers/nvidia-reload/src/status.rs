//! What is: the driver, who holds it, what was done last.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{ActiveState, Manager};
use holders::{Console, Holder, Module, Scan, Unexplained};
use ledger::{Act, Run, Step};
use modules::gate;
use request::Request;
use serde::Serialize;
use slots::Note;
use step::{Reason, Root, Versions};

use crate::fault::{Fault, Result};
use crate::gpus::{Need, look};
use crate::target::Target;

/// The name and version of the JSON.
pub const SCHEMA: &str = "nvidia-reload.status/1";

/// How long NVML is waited for: somebody looks at the screen.
const NVML_TIME: Duration = Duration::from_secs(5);

/// The driver, loaded and on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// The version that is loaded, if it is.
    pub loaded: Option<String>,
    /// The version that the next load would bring, if there is one for this kernel.
    pub on_disk: Option<String>,
    /// Whether both are there and differ: programs with the new libraries do not start until the
    /// driver is reloaded. None when one of them is not known.
    pub mismatch: Option<bool>,
    /// Why no reload can help now, and what does; null where one may help.
    pub out_of_reach: Option<Reason>,
}

/// A driver whose files were put on disk without its package manager or installer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutBack {
    /// The driver whose files are on disk.
    pub version: String,
    /// The driver that they replaced, if it is known.
    pub instead_of: Option<String>,
    /// The run that did it.
    pub run: String,
    /// What brings the disk and the package database together, in words.
    pub remedy: String,
}

impl PutBack {
    /// What is noted of it, as long as it holds.
    ///
    /// # Errors
    /// The note is there and cannot be read.
    pub fn read(root: &Root) -> anyhow::Result<Option<Self>> {
        Ok(Note::read(root)?.map(|Note { version, instead_of, run, remedy, .. }| Self {
            version,
            instead_of,
            run,
            remedy,
        }))
    }

    /// What is so, in a sentence without its end.
    pub fn sentence(&self) -> String {
        slots::sentence(&self.version, self.instead_of.as_deref())
    }
}

/// What the machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The GPUs are there for everyone.
    InService,
    /// A run is under way.
    Busy,
    /// A run gives back what it took.
    GivingBack,
    /// What holds the GPUs is stopped and stays so; the driver is loaded.
    Drained,
    /// The driver is out and stays so.
    Offline,
    /// systemd does not tell.
    Unknown,
}

/// Whether the driver may be loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// No: the gate is shut.
    pub shut: bool,
    /// A run keeps NVIDIA's own services out.
    pub busy: bool,
}

/// A run, in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunInShort {
    /// Its id.
    pub id: String,
    /// When it began, in microseconds since 1970.
    pub opened_usec: u64,
    /// When its last line was written, in microseconds since 1970.
    pub last_usec: u64,
    /// How it ended; null while it is open.
    pub outcome: Option<ledger::Outcome>,
    /// Whether it was cancelled.
    pub cancelled: bool,
    /// The steps that failed.
    pub failures: Vec<(Step, String)>,
    /// What it took and has not given back.
    pub missing: Vec<Act>,
    /// Processes that it ended: they do not come back by themselves.
    pub ended: Vec<ledger::Process>,
}

impl From<&Run> for RunInShort {
    fn from(run: &Run) -> Self {
        Self {
            id: run.id.clone(),
            opened_usec: run.opened_usec,
            last_usec: run.last_usec,
            outcome: run.outcome,
            cancelled: run.cancelled,
            failures: run.failures.clone(),
            missing: run.missing().into_iter().cloned().map(Act::without_secrets).collect(),
            ended: run.killed().into_iter().cloned().collect(),
        }
    }
}

/// What the ledger tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Runs {
    /// Whether it could be read: it holds command lines of everyone, so only root may.
    pub visible: bool,
    /// The run that is open.
    pub open: Option<RunInShort>,
    /// The run that ended last.
    pub last: Option<RunInShort>,
}

/// Everything that `status` shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The driver, loaded and on disk.
    pub driver: Driver,
    /// What the machine is doing.
    pub state: State,
    /// The state of each target; null where systemd does not answer.
    pub targets: Option<BTreeMap<&'static str, String>>,
    /// Whether the driver may be loaded.
    pub gate: Gate,
    /// The loaded modules, dependents first.
    pub modules: Vec<Module>,
    /// What each GPU needs.
    pub gpus: Vec<Need>,
    /// Who holds the driver.
    pub holders: Vec<Holder>,
    /// Text consoles drawn on it.
    pub consoles: Vec<Console>,
    /// References that the holders do not account for.
    pub unexplained: Vec<Unexplained>,
    /// What could not be looked at, in sentences.
    pub unseen: Vec<String>,
    /// What the ledger tells.
    pub runs: Runs,
    /// The driver whose files were put back; null when whoever installs drivers did so last.
    pub put_back: Option<PutBack>,
    /// The driver whose libraries are found before those on disk, until the reload.
    pub healed: Option<slots::Healed>,
    /// A reload that waits for its moment.
    pub request: Option<Request>,
    /// The lease that this machine has, or may have, from the fleet's lock.
    pub lease: Option<fleetlock::Lease>,
    /// The initramfs of the running kernel, where it holds another driver than the disk.
    pub initramfs: Option<Initramfs>,
}

/// What the next boot would load instead of the driver on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Initramfs {
    /// The archive.
    pub archive: String,
    /// The modules in it that are not those on disk.
    pub stale: Vec<initramfs::Packed>,
    /// The command that makes it anew, where one is known.
    pub remedy: Option<String>,
}

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
    // NVML holds the driver while it is asked: not in the middle of a run, and not for nobody. And a
    // library of another version does not start.
    let ask = !gate.busy && !scan.holders.is_empty() && driver.mismatch != Some(true);
    // After the scan: what asks NVML holds the driver.
    let looked = look(root, !gate.busy && driver.loaded.is_some(), NVML_TIME);
    let gpus = looked.needs();
    let nvml_unseen = if ask { add_gpu_memory(root, &mut scan) } else { Vec::new() };
    let Scan { modules, holders, consoles, unexplained, mut unseen, .. } = scan;
    unseen.extend(nvml_unseen);
    unseen.extend(looked.trouble.iter().chain(&looked.unseen).map(|what| sentence(what)));
    unseen.extend(disk_unseen);
    driver.out_of_reach = out_of_reach(root).unwrap_or_else(|error| {
        unseen.push(format!("Whether the driver is installed for this kernel: {error:#}."));
        None
    });
    let (runs, ledger_unseen) = runs(root)?;
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
    let units = match units() {
        Ok(units) => Some(units),
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
    })
}

/// `what` as the sentence that it is.
fn sentence(what: &str) -> String {
    let mut letters = what.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

/// Adds the GPU memory that NVML tells of; returns what it could not tell, in sentences.
fn add_gpu_memory(root: &Root, scan: &mut Scan) -> Vec<String> {
    match gpu::ask_helper(&root.path(gpu::HELPER), gpu::Question::Usage, NVML_TIME) {
        Ok(Some(gpu::Usage::Ok { processes, problems })) => {
            let list: Vec<(i32, Option<u64>)> =
                processes.iter().map(|used| (used.pid, used.memory)).collect();
            let mut unseen = problems;
            for pid in scan.add_gpu_memory(&list) {
                unseen.push(format!("NVML lists process {pid}, which was not seen to hold a device."));
            }
            unseen
        }
        // Of another version than the driver, for instance: the versions are shown anyway.
        Ok(Some(gpu::Usage::No { reason })) => vec![format!("GPU memory: NVML says \"{reason}\".")],
        Ok(None) => vec![format!("GPU memory: NVML did not answer in {} seconds.", NVML_TIME.as_secs())],
        Err(error) => vec![format!("GPU memory: {error:#}.")],
    }
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

/// The driver's versions, and why one of them could not be told.
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
    Ok((Driver { loaded, on_disk, mismatch, out_of_reach: None }, unseen))
}

fn out_of_reach(root: &Root) -> anyhow::Result<Option<Reason>> {
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
            let short = |run: Option<Run>| run.as_ref().map(RunInShort::from);
            Ok((Runs { visible: true, open: short(open), last: short(last) }, None))
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

fn units() -> std::result::Result<Units, bus::Error> {
    our_units(&Manager::system()?)
}

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
        return State::GivingBack;
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
            (units(&[(preflight, Active), (drain, Deactivating)]), State::GivingBack),
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
