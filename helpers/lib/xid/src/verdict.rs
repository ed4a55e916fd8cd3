// SPDX-License-Identifier: MIT
//! What a GPU needs, by all that is known of it.
//!
//! The precedence, for each GPU:
//! 1. Off the bus, or an error that the whole machine has until it is rebooted: nothing beats that.
//! 2. The driver's own verdict: NVML's recovery action, or where it was not asked the last Xid 154.
//! 3. NVML's `GPU_IS_LOST` and `RESET_REQUIRED`, and that it cannot use the GPU or does not show it.
//! 4. The classes of the messages since the driver was loaded, since the GPU was reset and since its
//!    last Xid 154. That the GPU did not start is over once NVML shows it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::classify::class;
use crate::{Address, Branch, Class, Detail, Event, Severity, catalogue};

/// A kernel message of this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When: microseconds of the kernel's log clock, as dmesg shows them.
    pub usec: u64,
    /// As the kernel has it.
    pub text: String,
    /// What it is.
    pub event: Event,
}

/// What NVML says of a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NvmlState {
    /// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`, field 230; drivers before 565 have none.
    pub recovery_action: Option<u32>,
    /// `NVML_ERROR_GPU_IS_LOST`.
    pub lost: bool,
    /// `NVML_ERROR_RESET_REQUIRED`.
    pub reset_required: bool,
    /// Why it cannot use the GPU, for another reason: that it does not show it, or its error.
    pub failed: Option<String>,
}

/// A GPU, and what is known of it from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Where it sits.
    pub pci: Address,
    /// Whether its PCI configuration space answers; none where that was not read.
    pub on_bus: Option<bool>,
    /// When it was reset last, on the clock of the messages.
    pub reset_usec: Option<u64>,
    /// What NVML says; none where it was not asked.
    pub nvml: Option<NvmlState>,
}

impl Gpu {
    /// A GPU of which nothing is known.
    pub fn at(pci: Address) -> Self {
        Self { pci, on_bus: None, reset_usec: None, nvml: None }
    }
}

/// What a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What it means by itself.
    pub class: Class,
    /// In words: `Xid 119 GSP RPC Timeout, …`, `NVML reports that the GPU is lost`.
    pub what: String,
    /// The kernel message, if it is one.
    pub line: Option<String>,
    /// When it was, in microseconds of the kernel's log clock; none for what is read now.
    pub usec: Option<u64>,
    /// NVIDIA's action, in words.
    pub action: &'static str,
    /// NVML says so now; it is no message.
    pub by_nvml: bool,
}

/// What a GPU needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which GPU or switch; none for the machine as a whole.
    pub pci: Option<Address>,
    /// What it needs: `info` for a healthy one.
    pub class: Class,
    /// It is off the bus. nvidia_drm must not be unloaded: that does not end.
    pub lost: bool,
    /// Only switching the power off and on again helps.
    pub cold: bool,
    /// Why, the decisive first, each kind once, with its last message.
    pub evidence: Vec<Evidence>,
}

/// The verdicts: of the machine first, where there is something to say, then of each of `gpus` and of
/// whatever else `messages` are about, by address. `messages` are those of this boot, in their order.
pub fn verdicts(messages: &[Message], gpus: &[Gpu]) -> Vec<Verdict> {
    let mut subjects: BTreeMap<Option<Address>, Subject> =
        gpus.iter().map(|gpu| (Some(gpu.pci), Subject::new(gpu.clone()))).collect();
    let mut branch = None;
    for message in messages {
        match &message.event {
            Event::DriverLoad { version, .. } => {
                branch = Branch::of_version(version);
                subjects.values_mut().for_each(Subject::driver_loaded);
            }
            event => {
                let Some(class) = class(event, branch) else { continue };
                let pci = event.address();
                let unknown =
                    || Subject::new(Gpu::at(pci.unwrap_or(Address { domain: 0, bus: 0, device: 0 })));
                subjects.entry(pci).or_insert_with(unknown).apply(message, class);
            }
        }
    }
    let machine: Vec<Evidence> = match subjects.get(&None) {
        Some(machine) => machine.lasting.values().cloned().collect(),
        None => Vec::new(),
    };
    let verdict = |(pci, subject): (Option<Address>, Subject)| {
        let mut verdict = subject.verdict(pci);
        // A switch, or a GPU that was not asked about, of which nothing is to be said.
        let asked_for = gpus.iter().any(|gpu| Some(gpu.pci) == pci);
        if !asked_for && verdict.evidence.is_empty() {
            return None;
        }
        // What the whole machine has, each of its GPUs has.
        if pci.is_some() && !machine.is_empty() {
            verdict.evidence.splice(0..0, machine.iter().cloned());
            verdict.class = Class::Reboot;
        }
        Some(verdict)
    };
    subjects.into_iter().filter_map(verdict).collect()
}

/// What is heard of one GPU, of a switch, or of the machine.
struct Subject {
    gpu: Gpu,
    /// Evidence that no load of the driver takes back.
    lasting: BTreeMap<String, Evidence>,
    /// The last Xid 154, and whether it came before the driver was loaded.
    recovery: Option<Evidence>,
    /// Since the last load, reset and Xid 154.
    table: BTreeMap<String, Evidence>,
    /// The GPU was said to be off the bus.
    lost: bool,
    cold: bool,
}

impl Subject {
    fn new(gpu: Gpu) -> Self {
        Self {
            gpu,
            lasting: BTreeMap::new(),
            recovery: None,
            table: BTreeMap::new(),
            lost: false,
            cold: false,
        }
    }

    /// What a driver knew goes with it; what the hardware has stays. The driver's own "reboot" is a flag
    /// in its memory: a load clears the flag and not the reason.
    fn driver_loaded(&mut self) {
        self.table.clear();
        self.lost = false;
        if let Some(recovery) = self.recovery.take_if(|recovery| recovery.class == Class::Reboot) {
            self.lasting.insert("recovery".to_owned(), recovery);
        }
        self.recovery = None;
    }

    fn apply(&mut self, message: &Message, class: Class) {
        let evidence = Evidence {
            class,
            what: message.event.to_string(),
            line: Some(message.text.clone()),
            usec: Some(message.usec),
            action: action(&message.event, class),
            by_nvml: false,
        };
        let kind = kind(&message.event, class);
        if is_lasting(&message.event) {
            self.cold |= matches!(&message.event, Event::Xid(xid) if xid.xid == COLD);
            self.lasting.insert(kind, evidence);
            return;
        }
        if self.gpu.reset_usec.is_some_and(|reset| message.usec <= reset) {
            return;
        }
        if matches!(&message.event, Event::Xid(xid) if matches!(xid.detail, Detail::Recovery { .. })) {
            // Whatever came before is in the driver's verdict. Only that the GPU is off the bus is not, until
            // the driver has nothing against it any more.
            let stays = self.lost && class > Class::Info;
            self.table.retain(|kind, _| stays && kind == LOSS);
            self.lost = stays;
            self.recovery = Some(evidence);
            return;
        }
        self.lost |= is_loss(&message.event);
        self.table.insert(kind, evidence);
    }

    fn verdict(mut self, pci: Option<Address>) -> Verdict {
        // It came up after all.
        if self.gpu.nvml.as_ref().is_some_and(|nvml| nvml.failed.is_none()) {
            self.table.remove(INIT);
        }
        let nvml = self.gpu.nvml.unwrap_or_default();
        // It was gone, it is back, and the driver says what it needs.
        if self.gpu.on_bus == Some(true) && (self.recovery.is_some() || nvml.recovery_action.is_some()) {
            self.lost = false;
            self.table.remove(LOSS);
        }
        let mut evidence: Vec<Evidence> = Vec::new();
        if self.gpu.on_bus == Some(false) {
            evidence.push(now(Class::Reboot, "its PCI configuration space does not answer"));
        }
        evidence.extend(self.lasting.into_values());
        match nvml.recovery_action {
            // Newer than every message.
            Some(action) => {
                let words = catalogue::recovery_action(action);
                let what = format!("the driver asks for a recovery: {words} (NVML field 230 is {action})");
                evidence.push(by_nvml(Class::of_recovery_action(action), &what));
                evidence.extend(self.table.remove(LOSS));
            }
            None => {
                evidence.extend(self.recovery);
                evidence.extend(self.table.into_values());
            }
        }
        if nvml.lost {
            evidence.push(by_nvml(Class::Reboot, "NVML reports that the GPU is lost"));
        }
        if nvml.reset_required {
            evidence.push(by_nvml(Class::Reset, "NVML reports that the GPU requires a reset"));
        }
        if let Some(why) = &nvml.failed {
            evidence.push(by_nvml(Class::Failed, why));
        }
        evidence.retain(|evidence| evidence.class > Class::Info);
        // Stable: of one class, what is above comes first.
        evidence.sort_by_key(|evidence| std::cmp::Reverse(evidence.class));
        Verdict {
            pci,
            class: evidence.first().map_or(Class::Info, |evidence| evidence.class),
            lost: self.lost || nvml.lost || self.gpu.on_bus == Some(false),
            cold: self.cold,
            evidence,
        }
    }
}

/// `SEC_FAULT`: only a cold reset clears it, says the driver's source (kern_gpu_gb202.c).
const COLD: u32 = 110;

/// What stays when the driver is reloaded: in the hardware, in the switches, or in the reason for a
/// flag that only the flag forgets (nv_gpu_ops.c, nvGpuOpsReportFatalError).
fn is_lasting(event: &Event) -> bool {
    match event {
        Event::UvmFatal { .. } => true,
        Event::Xid(xid) => xid.xid == COLD,
        Event::Sxid(sxid) => sxid.always_fatal && sxid.severity == Severity::Fatal,
        _ => false,
    }
}

/// What is said again when it is said that the GPU is off the bus.
const LOSS: &str = "lost";

/// What is said again each time that somebody opens a GPU that does not start.
const INIT: &str = "init";

fn is_loss(event: &Event) -> bool {
    matches!(event, Event::GpuLost(_)) || matches!(event, Event::Xid(xid) if xid.xid == 79)
}

/// What counts as the same, said again.
fn kind(event: &Event, class: Class) -> String {
    let kind = match event {
        // The same in two ways, and of one class.
        event if is_loss(event) => return LOSS.to_owned(),
        Event::RmInitFailed { .. } => return INIT.to_owned(),
        Event::Xid(xid) => format!("xid {:03}", xid.xid),
        Event::Sxid(sxid) => format!("sxid {}", sxid.sxid),
        other => format!("{:?}", std::mem::discriminant(other)),
    };
    format!("{kind} {}", class.name())
}

fn now(class: Class, what: &str) -> Evidence {
    Evidence { class, what: what.to_owned(), line: None, usec: None, action: usual(class), by_nvml: false }
}

fn by_nvml(class: Class, what: &str) -> Evidence {
    Evidence { by_nvml: true, ..now(class, what) }
}

/// NVIDIA's action for a message.
fn action(event: &Event, class: Class) -> &'static str {
    match event {
        Event::Xid(xid) if xid.xid == COLD => "switch the power off and on again",
        Event::Xid(xid) => match (&xid.detail, catalogue::entry(xid.xid)) {
            (Detail::Recovery { .. } | Detail::NvLink5(_), _) => usual(class),
            (_, Some(entry)) if !entry.action.is_empty() => catalogue::action_in_words(entry.action),
            _ => usual(class),
        },
        Event::Sxid(sxid) if sxid.always_fatal => {
            "restart the machine, or reset all switches and GPUs together"
        }
        Event::ApiMismatch(_) => "use one version of the driver's modules and libraries",
        _ => usual(class),
    }
}

/// NVIDIA's action where only the class is known.
fn usual(class: Class) -> &'static str {
    match class {
        Class::Info => "nothing has to be done",
        Class::App => "restart the application",
        Class::Reload => "reload the driver",
        Class::Support => "contact support",
        Class::Failed => "reload the driver; if that does not help, reset the GPU or restart the machine",
        Class::Reset => "reset the GPU",
        Class::Reboot => "restart the machine",
    }
}

/// Only what can still change a verdict: of several messages of one kind about one GPU the last, and from
/// before the last load of the driver only what a load does not take back. For a caller that keeps messages
/// that the kernel's log may lose.
pub fn condensed(messages: &[Message]) -> Vec<Message> {
    let loads = messages.iter().filter(|message| matches!(message.event, Event::DriverLoad { .. })).count();
    let mut last: BTreeMap<(Option<Address>, String), usize> = BTreeMap::new();
    let (mut branch, mut load) = (None, 0);
    for (at, message) in messages.iter().enumerate() {
        if let Event::DriverLoad { version, .. } = &message.event {
            branch = Branch::of_version(version);
            load += 1;
            last.insert((None, "load".to_owned()), at);
            continue;
        }
        let Some(class) = class(&message.event, branch) else { continue };
        let pci = message.event.address();
        let kind = match &message.event {
            // The last word of each driver counts, and of earlier ones only if it was a reboot.
            Event::Xid(xid) if matches!(xid.detail, Detail::Recovery { .. }) => {
                if class == Class::Info {
                    last.remove(&(pci, LOSS.to_owned()));
                }
                let key = (pci, format!("recovery {load}"));
                match load == loads || class == Class::Reboot {
                    true => last.insert(key, at),
                    false => last.remove(&key),
                };
                continue;
            }
            event => kind(event, class),
        };
        if load == loads || is_lasting(&message.event) {
            last.insert((pci, kind), at);
        }
    }
    let mut kept: Vec<usize> = last.into_values().collect();
    kept.sort_unstable();
    kept.into_iter().map(|at| messages[at].clone()).collect()
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
