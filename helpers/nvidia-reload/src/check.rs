// SPDX-License-Identifier: MIT
//! What the driver needs, for those who watch many machines: in one word, with the reasons.

use std::time::Duration;

use gpu::Library;
use health::Health;
use modules::coherent::{Onlined, gpu_memory, only_a_reboot};
use modules::{Manager, State, cannot_unload, chain, managed_by_container, out_of_reach};
use serde::Serialize;
use slots::{Healed, version_on_disk};
use step::{Reason, Root, Versions};
use xid::Class;

use crate::fault::{Fault, Result};
use crate::gpus::{Inventory, Need, look};
use crate::status::versions;

mod condition;

pub use condition::Condition;

/// The name and version of the JSON.
pub const SCHEMA: &str = "nvidia-reload.check/1";

/// Monitors give a plugin ten seconds by default.
const NVML_TIME: Duration = Duration::from_secs(8);

/// How long the driver may take to answer for the memory of its GPUs: before NVML is asked, in the same ten seconds.
const MEMORY_TIME: Duration = Duration::from_secs(1);

/// Which monitor reads the line and the exit status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Nagios and its kin: OK 0, WARNING 1, CRITICAL 2, UNKNOWN 3
    #[default]
    Nagios,
    /// Kubernetes' node-problem-detector: 0 for no problem, 1 for one, 2 for unknown; 80 bytes at most
    Npd,
    /// Node Health Check (NHC) and Slurm's HealthCheckProgram: 0 and no line where jobs can use the GPUs, else 1
    Nhc,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What the driver needs.
    pub condition: Condition,
    /// Why, in sentences; empty where it needs nothing.
    pub why: Vec<String>,
    /// The driver, loaded and on disk.
    pub driver: Versions,
    /// The version of NVML's library that the linker chooses.
    pub library: Option<String>,
    /// The driver whose libraries are found before those on disk, until the reload: `nvidia-reload heal`.
    pub healed: Option<String>,
    /// What each GPU needs.
    pub gpus: Vec<Need>,
    /// What could not be looked at, in sentences.
    pub unseen: Vec<String>,
}

impl Checked {
    /// What is not known.
    pub fn unknown(fault: &Fault) -> Self {
        Self {
            schema: SCHEMA,
            condition: Condition::Unknown,
            why: vec![
                fault.causes.iter().fold(fault.error.clone(), |text, cause| format!("{text}: {cause}")),
            ],
            driver: Versions::default(),
            library: None,
            healed: None,
            gpus: Vec::new(),
            unseen: Vec::new(),
        }
    }

    /// Whether programs that start can use the GPUs: also while a reload waits, if they find the loaded driver's
    /// libraries.
    pub fn works(&self) -> bool {
        let is_healed = self.healed.is_some() && self.healed == self.driver.loaded;
        match self.condition {
            Condition::Match => true,
            Condition::ReloadNeeded => is_healed,
            _ => false,
        }
    }

    /// What the exit status says to a monitor.
    pub fn exit(&self, format: Format) -> u8 {
        match (format, self.condition) {
            (Format::Nagios, condition) => condition.exit(),
            (Format::Npd, Condition::Match) => 0,
            (Format::Npd, Condition::Unknown) => 2,
            (Format::Npd, _) => 1,
            (Format::Nhc, _) => u8::from(!self.works()),
        }
    }
}

/// What is found on the way.
#[derive(Default)]
struct Findings(Vec<(Condition, String)>);

impl Findings {
    fn add(&mut self, condition: Condition, why: impl Into<String>) {
        self.0.push((condition, why.into()));
    }

    /// The worst, with the reasons for it and for nothing less.
    fn condition(self) -> (Condition, Vec<String>) {
        let worst = self.0.iter().map(|(condition, _)| *condition).max().unwrap_or(Condition::Match);
        let why = self.0.into_iter().filter(|(condition, _)| *condition == worst).map(|(_, why)| why);
        (worst, why.collect())
    }
}

/// Looks. Changes nothing, and needs no rights; what only root sees is said to be unseen.
///
/// # Errors
/// What every user can read cannot be read.
pub fn check(root: &Root) -> Result<Checked> {
    let mut findings = Findings::default();
    let driver = versions(root)?;
    let loaded = chain(root)?;
    for module in loaded.iter().filter(|module| module.state == State::Going) {
        let name = &module.module.name;
        findings.add(Condition::RebootNeeded, format!("{name} is stuck on its way out of the kernel"));
    }
    let no_answer = memory(root, &mut findings).unwrap_or_else(|error| {
        findings.add(Condition::Unknown, format!("the memory of the GPUs: {error:#}"));
        Vec::new()
    });
    let looked = look(root, true, NVML_TIME);
    let gpus = looked.needs();
    let Inventory { nvml, trouble, judged, mut unseen, .. } = looked;
    unseen.extend(no_answer);
    let healed = Healed::read(root).unwrap_or_else(|error| {
        unseen.push(format!("whether the driver is healed: {error:#}"));
        None
    });
    let (library, installed) = match nvml.map(|state| state.library) {
        Some(Library::Found { path, version }) => {
            let installed = version_on_disk(root, &path, version.clone()).unwrap_or_else(|error| {
                unseen.push(format!("the libraries on disk: {error:#}"));
                None
            });
            (version, installed)
        }
        _ => (None, None),
    };
    unseen.extend(on_disk(root, &driver, installed.as_deref(), &mut findings));
    let healed = healed.map(|healed| healed.version);
    if let Some(version) = &healed {
        heals(version, &driver, &mut findings);
    }
    if let Some(trouble) = trouble {
        findings.add(Condition::Unknown, trouble);
    }
    judged.iter().for_each(|health| need(health, &mut findings));
    let (condition, mut why) = findings.condition();
    if condition == Condition::ReloadNeeded {
        match request::read(root) {
            Ok(request) => why.extend(request.map(|request| request.state.words().to_owned())),
            Err(error) => unseen.push(format!("a request for a reload: {error:#}")),
        }
    }
    Ok(Checked { schema: SCHEMA, condition, why, driver, library, healed, gpus, unseen })
}

/// Whether the kernel uses memory of a GPU and did not give it up. What the driver did not answer, a sentence each.
fn memory(root: &Root, findings: &mut Findings) -> anyhow::Result<Vec<String>> {
    let gpus = gpu_memory(root, MEMORY_TIME)?;
    for why in only_a_reboot(root, &gpus)? {
        findings.add(Condition::RebootNeeded, why);
    }
    let silent = gpus.iter().filter(|gpu| gpu.is == Onlined::NoAnswer);
    Ok(silent.map(|gpu| format!("whether {gpu} is online: the driver does not answer")).collect())
}

/// Judges the driver on disk. What could not be looked at, in a sentence.
fn on_disk(root: &Root, driver: &Versions, library: Option<&str>, findings: &mut Findings) -> Option<String> {
    match managed_by_container(root) {
        Ok(None) => {}
        Ok(Some(reason)) => {
            findings.add(Condition::Unknown, reason.what);
            return None;
        }
        Err(error) => return Some(format!("the driver: {error:#}")),
    }
    match cannot_unload(root) {
        Ok(None) => {}
        Ok(Some(reason)) => {
            only_a_boot(driver, library, &reason, findings);
            return None;
        }
        Err(error) => return Some(format!("the driver: {error:#}")),
    }
    let unseen = match out_of_reach(root, library) {
        Ok(None) => None,
        Ok(Some(reason)) => {
            findings.add(Condition::NotInstalled, reason.to_string());
            None
        }
        Err(error) => Some(format!("the driver on disk: {error:#}")),
    };
    compare(driver, library, Manager::of(root), findings);
    unseen
}

/// Where the loaded driver stays until the next boot, for `reason`, what programs link is what counts: the
/// modules may have come from elsewhere than the disk.
fn only_a_boot(driver: &Versions, library: Option<&str>, reason: &Reason, findings: &mut Findings) {
    let loaded = driver.loaded.as_deref();
    match library.or(driver.on_disk.as_deref()) {
        Some(wanted) if loaded == Some(wanted) => {}
        Some(wanted) => findings.add(
            Condition::RebootNeeded,
            format!("{} is loaded, {wanted} is on disk; {reason}", loaded.unwrap_or("another driver")),
        ),
        None => findings.add(Condition::Unknown, "none of the driver's libraries is found".to_owned()),
    }
}

/// Whether what is loaded, what is on disk and what programs link are one driver.
fn compare(driver: &Versions, library: Option<&str>, manager: Manager, findings: &mut Findings) {
    let (Some(loaded), Some(on_disk)) = (&driver.loaded, &driver.on_disk) else {
        findings.add(
            Condition::Unknown,
            match &driver.loaded {
                None => "the driver is not loaded".to_owned(),
                Some(loaded) => format!("{loaded} is loaded, and none is on disk for this kernel"),
            },
        );
        return;
    };
    match library {
        Some(library) if library != on_disk => findings.add(
            Condition::Unknown,
            format!("the modules on disk are {on_disk} and the libraries {library}: {}", manager.finish()),
        ),
        _ if loaded != on_disk => {
            findings.add(Condition::ReloadNeeded, format!("{loaded} is loaded, {on_disk} is on disk"));
        }
        _ => {}
    }
}

/// Programs that start get the libraries of driver `version`, which is the loaded one until the reload.
fn heals(version: &str, driver: &Versions, findings: &mut Findings) {
    let (loaded, on_disk) = (driver.loaded.as_deref(), driver.on_disk.as_deref().unwrap_or("another"));
    findings.add(
        Condition::ReloadNeeded,
        match loaded == Some(version) {
            true => format!("healed: {version} in use, reload to {on_disk} pending"),
            false => format!(
                "programs find the libraries of {version}, which is not loaded: `nvidia-reload heal --end`"
            ),
        },
    );
}

/// What a GPU, or the machine, needs.
fn need(health: &Health, findings: &mut Findings) {
    let Some(evidence) = health.evidence.first() else { return };
    let condition = match health.class {
        Class::Reboot => Condition::RebootNeeded,
        Class::Reset => Condition::ResetNeeded,
        Class::Failed => Condition::GpuFailed,
        // A mismatch of versions is seen by itself, and what programs did is theirs.
        Class::Reload | Class::App | Class::Info | Class::Support => return,
    };
    findings.add(condition, health.says(evidence));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(loaded: Option<&str>, on_disk: Option<&str>, library: Option<&str>) -> (Condition, Vec<String>) {
        let mut findings = Findings::default();
        let driver = Versions { loaded: loaded.map(Into::into), on_disk: on_disk.map(Into::into) };
        compare(&driver, library, Manager::Unknown, &mut findings);
        findings.condition()
    }

    #[test]
    fn metrics_and_json_call_a_condition_by_one_name() {
        for condition in Condition::ALL {
            assert_eq!(serde_json::to_value(condition).expect("a name"), condition.key());
        }
    }

    #[test]
    fn the_versions_match_when_all_three_are_one() {
        assert_eq!(of(Some("1"), Some("1"), Some("1")), (Condition::Match, Vec::new()));
        assert_eq!(of(Some("1"), Some("1"), None).0, Condition::Match, "no userland is no mismatch");
        assert_eq!(of(Some("1"), Some("2"), Some("2")).0, Condition::ReloadNeeded);
        assert_eq!(of(Some("1"), Some("2"), Some("1")).0, Condition::Unknown, "an upgrade half done");
        assert_eq!(of(Some("1"), Some("1"), Some("2")).0, Condition::Unknown);
        assert_eq!(of(None, Some("2"), Some("2")).0, Condition::Unknown);
        assert_eq!(of(Some("1"), None, None).0, Condition::Unknown);
    }

    #[test]
    fn a_healed_driver_waits_for_its_reload() {
        let of = |loaded: &str| {
            let mut findings = Findings::default();
            let driver = Versions { loaded: Some(loaded.into()), on_disk: Some("2".into()) };
            heals("1", &driver, &mut findings);
            findings.condition()
        };
        assert_eq!(of("1"), (Condition::ReloadNeeded, vec!["healed: 1 in use, reload to 2 pending".into()]));
        assert!(of("2").1[0].contains("heal --end"), "somebody loaded another driver by hand");
    }

    #[test]
    fn every_layout_has_the_condition_that_is_expected() {
        golden::compare(&["check"], |machine| {
            let mut findings = Findings::default();
            let driver = versions(&machine.root).expect("reads");
            assert_eq!(on_disk(&machine.root, &driver, machine.library_version(), &mut findings), None);
            memory(&machine.root, &mut findings).expect("reads");
            let (condition, _) = findings.condition();
            machine.line("check", &format!("{} ({})", condition.words(), condition.exit()))
        });
    }

    #[test]
    fn the_worst_counts_and_has_its_own_reasons() {
        let mut findings = Findings::default();
        findings.add(Condition::ReloadNeeded, "a");
        findings.add(Condition::RebootNeeded, "b");
        findings.add(Condition::ResetNeeded, "c");
        findings.add(Condition::RebootNeeded, "d");
        assert_eq!(findings.condition(), (Condition::RebootNeeded, vec!["b".into(), "d".into()]));
    }

    #[test]
    fn a_gpu_that_does_not_work_is_critical_whatever_it_needs() {
        let condition = |class| {
            let mut findings = Findings::default();
            let evidence =
                xid::Evidence { class, what: "a".into(), line: None, usec: None, action: "", by_nvml: true };
            let name = Some("GPU 0".to_owned());
            need(&Health { name, pci: None, class, cold: false, evidence: vec![evidence] }, &mut findings);
            let (condition, why) = findings.condition();
            (condition, condition.exit(), why)
        };
        for (class, expected) in [
            (Class::Failed, Condition::GpuFailed),
            (Class::Reset, Condition::ResetNeeded),
            (Class::Reboot, Condition::RebootNeeded),
        ] {
            assert_eq!(condition(class), (expected, 2, vec!["GPU 0: a".to_owned()]));
        }
        assert_eq!(condition(Class::Support), (Condition::Match, 0, vec![]));
    }

    #[test]
    fn exit_codes_are_those_of_plugins() {
        let codes: Vec<u8> = Condition::ALL.iter().map(|condition| condition.exit()).collect();
        assert_eq!(codes, [0, 1, 2, 2, 2, 2, 3]);
    }
}
