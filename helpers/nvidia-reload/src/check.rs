//! What the driver needs, for those who watch many machines: in one word, with the reasons.

use std::collections::BTreeMap;
use std::time::Duration;

use gpu::{Answer, Library, Seen, State as Nvml, Trouble, ask_state};
use messages::hear;
use modules::{State, chain, gpus, on_bus, out_of_reach};
use serde::Serialize;
use step::{Root, Versions};
use xid::{Address, Class, Gpu, NvmlState, Verdict, verdicts};

use crate::fault::Result;
use crate::status::versions;

/// The name and version of the JSON.
pub const SCHEMA: &str = "nvidia-reload.check/1";

/// Monitors give a plugin ten seconds by default.
const NVML_TIME: Duration = Duration::from_secs(8);

/// What the driver needs; the worst comes last, but for what is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Nothing: what is loaded is what is on disk, and no GPU complains.
    InStep,
    /// It cannot be told, or it is in no state that a reload or a reset is for.
    Unknown,
    /// A reload: another driver is on disk than is loaded.
    ReloadNeeded,
    /// A reset of a GPU.
    ResetNeeded,
    /// A reboot.
    RebootNeeded,
}

impl Condition {
    /// All of them.
    pub const ALL: [Condition; 5] = [
        Condition::InStep,
        Condition::ReloadNeeded,
        Condition::ResetNeeded,
        Condition::RebootNeeded,
        Condition::Unknown,
    ];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Condition::InStep => "in step",
            Condition::ReloadNeeded => "reload needed",
            Condition::ResetNeeded => "reset needed",
            Condition::RebootNeeded => "reboot needed",
            Condition::Unknown => "unknown",
        }
    }

    /// What a monitor's plugin exits with (Monitoring Plugins' guidelines): OK, WARNING, CRITICAL,
    /// UNKNOWN.
    pub fn exit(self) -> u8 {
        match self {
            Condition::InStep => 0,
            Condition::ReloadNeeded => 1,
            Condition::ResetNeeded | Condition::RebootNeeded => 2,
            Condition::Unknown => 3,
        }
    }
}

/// What one GPU needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Its PCI address, without the function.
    pub pci: String,
    /// As `nvidia-reload explain` has it; `info` for a healthy one.
    pub class: Class,
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
    /// What each GPU needs.
    pub gpus: Vec<Need>,
    /// What could not be looked at, in sentences.
    pub unseen: Vec<String>,
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
        let worst = self.0.iter().map(|(condition, _)| *condition).max().unwrap_or(Condition::InStep);
        let why = self.0.into_iter().filter(|(condition, _)| *condition == worst).map(|(_, why)| why);
        (worst, why.collect())
    }
}

/// Looks. Changes nothing, and needs no rights; what only root sees is said to be unseen.
///
/// # Errors
/// What every user can read cannot be read.
pub fn check(root: &Root) -> Result<Checked> {
    let (mut findings, mut unseen) = (Findings::default(), Vec::new());
    let driver = versions(root)?;
    let loaded = chain(root)?;
    for module in loaded.iter().filter(|module| module.state == State::Going) {
        let name = &module.module.name;
        findings.add(Condition::RebootNeeded, format!("{name} is stuck on its way out of the kernel"));
    }
    let state = match ask_state(&root.path(gpu::HELPER), None, true, NVML_TIME) {
        Ok(None) => {
            let seconds = NVML_TIME.as_secs();
            findings.add(Condition::Unknown, format!("NVML did not answer in {seconds} seconds"));
            None
        }
        Ok(state) => state,
        Err(error) => {
            unseen.push(format!("what NVML says: {error:#}"));
            None
        }
    };
    let library = state.as_ref().and_then(|state| match &state.library {
        Library::Found { version, .. } => version.clone(),
        Library::Absent { .. } => None,
    });
    match out_of_reach(root, library.as_deref()) {
        Ok(reason) => {
            reason.into_iter().for_each(|reason| findings.add(Condition::RebootNeeded, reason.to_string()))
        }
        Err(error) => unseen.push(format!("the driver on disk: {error:#}")),
    }
    in_step(&driver, library.as_deref(), &mut findings);
    let nvml = state.as_ref().map(|state| of_nvml(state, &mut findings)).unwrap_or_default();
    if let Some(Answer::Failed { reason }) = state.as_ref().map(|state| &state.nvml) {
        findings.add(Condition::Unknown, format!("NVML does not start: {reason}"));
    }
    let heard = match hear(root) {
        Ok(heard) => Some(heard),
        Err(error) => {
            unseen.push(format!("what the kernel said: {error:#}"));
            None
        }
    };
    let mut known = Vec::new();
    for name in gpus(root)? {
        let Ok(pci) = name.parse::<Address>() else { continue };
        let on_bus = on_bus(root, &name).unwrap_or_else(|error| {
            unseen.push(format!("whether GPU {name} is on the bus: {error:#}"));
            None
        });
        known.push(Gpu {
            pci,
            on_bus,
            reset_usec: heard.as_ref().and_then(|heard| heard.resets.get(&pci).copied()),
            nvml: nvml.get(&pci).copied(),
        });
    }
    let messages = heard.map(|heard| heard.messages).unwrap_or_default();
    let verdicts = verdicts(&messages, &known);
    verdicts.iter().for_each(|verdict| judge(verdict, &mut findings));
    let need = |verdict: &Verdict| Some(Need { pci: verdict.pci?.to_string(), class: verdict.class });
    let gpus = verdicts.iter().filter_map(need).collect();
    let (condition, mut why) = findings.condition();
    if condition == Condition::ReloadNeeded {
        match request::read(root) {
            Ok(request) => why.extend(request.map(|request| request.state.words().to_owned())),
            Err(error) => unseen.push(format!("a request for a reload: {error:#}")),
        }
    }
    Ok(Checked { schema: SCHEMA, condition, why, driver, library, gpus, unseen })
}

/// Whether what is loaded, what is on disk and what programs link are one driver.
fn in_step(driver: &Versions, library: Option<&str>, findings: &mut Findings) {
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
            format!("the modules on disk are {on_disk} and the libraries {library}: finish the upgrade"),
        ),
        _ if loaded != on_disk => {
            findings.add(Condition::ReloadNeeded, format!("{loaded} is loaded, {on_disk} is on disk"));
        }
        _ => {}
    }
}

/// What NVML says of each GPU that it tells the address of. Of one that is out of use it often tells
/// none: that is a finding by itself.
fn of_nvml(state: &Nvml, findings: &mut Findings) -> BTreeMap<Address, NvmlState> {
    let mut said = BTreeMap::new();
    for seen in &state.gpus {
        match seen {
            Seen::Ok(gpu) => {
                let Ok(pci) = gpu.pci.parse() else { continue };
                let recovery_action = gpu.health.recovery_action;
                said.insert(pci, NvmlState { recovery_action, ..NvmlState::default() });
            }
            Seen::Trouble { trouble: Trouble::Lost, .. } => {
                findings.add(Condition::RebootNeeded, format!("{seen} is lost: it fell off the bus"));
            }
            Seen::Trouble { trouble: Trouble::ResetRequired, .. } => {
                findings.add(Condition::ResetNeeded, format!("{seen} requires a reset"));
            }
            Seen::Trouble { trouble: Trouble::Other(error), .. } => {
                findings.add(Condition::Unknown, format!("NVML cannot use {seen}: {error}"));
            }
        }
    }
    said
}

fn judge(verdict: &Verdict, findings: &mut Findings) {
    let Some(evidence) = verdict.evidence.first() else { return };
    let condition = match verdict.class {
        Class::Reboot => Condition::RebootNeeded,
        Class::Reset => Condition::ResetNeeded,
        // A mismatch of versions is seen by itself, and what programs did is theirs.
        Class::Reload | Class::App | Class::Info | Class::Support => return,
    };
    match verdict.pci {
        Some(pci) => findings.add(condition, format!("GPU {pci}: {}", evidence.what)),
        None => findings.add(condition, evidence.what.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(loaded: Option<&str>, on_disk: Option<&str>, library: Option<&str>) -> (Condition, Vec<String>) {
        let mut findings = Findings::default();
        let driver = Versions { loaded: loaded.map(Into::into), on_disk: on_disk.map(Into::into) };
        in_step(&driver, library, &mut findings);
        findings.condition()
    }

    #[test]
    fn the_driver_is_in_step_when_all_three_are_one() {
        assert_eq!(of(Some("1"), Some("1"), Some("1")), (Condition::InStep, Vec::new()));
        assert_eq!(of(Some("1"), Some("1"), None).0, Condition::InStep, "no userland is no mismatch");
        assert_eq!(of(Some("1"), Some("2"), Some("2")).0, Condition::ReloadNeeded);
        assert_eq!(of(Some("1"), Some("2"), Some("1")).0, Condition::Unknown, "an upgrade half done");
        assert_eq!(of(Some("1"), Some("1"), Some("2")).0, Condition::Unknown);
        assert_eq!(of(None, Some("2"), Some("2")).0, Condition::Unknown);
        assert_eq!(of(Some("1"), None, None).0, Condition::Unknown);
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
    fn a_gpu_out_of_use_counts_without_an_address() {
        let condition = |trouble| {
            let mut findings = Findings::default();
            let state = Nvml {
                library: Library::Absent { reason: String::new() },
                instead: None,
                nvml: Answer::Asleep,
                confidential_computing: None,
                gpus: vec![Seen::Trouble { index: 1, pci: None, uuid: None, trouble }],
            };
            assert!(of_nvml(&state, &mut findings).is_empty());
            findings.condition().0
        };
        assert_eq!(condition(Trouble::Lost), Condition::RebootNeeded);
        assert_eq!(condition(Trouble::ResetRequired), Condition::ResetNeeded);
        assert_eq!(condition(Trouble::Other("x".into())), Condition::Unknown);
    }

    #[test]
    fn exit_codes_are_those_of_plugins() {
        let codes: Vec<u8> = Condition::ALL.iter().map(|condition| condition.exit()).collect();
        assert_eq!(codes, [0, 1, 2, 2, 3]);
    }
}
