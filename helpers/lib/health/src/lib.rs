// SPDX-License-Identifier: MIT
//! What each GPU needs: one judgement, from the bus, NVML and the kernel's messages together.
//!
//! Preflight, verify, `check`, `metrics` and `status` all use it, so that none calls a GPU healthy that another does not.
//! Each of them decides what follows from it: a refusal, a failure, an exit code.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use anyhow::Result;
use gpu::{Answer, Reading, State, Trouble};
use messages::Log;
use modules::{gpus, on_bus};
use step::Root;
use xid::{Address, Class, Event, Evidence, Gpu, Message, NvmlState, verdicts};

/// What a GPU, a switch or the machine needs, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What it is called: `GPU 1 (0000:3b:00.0)`; none for the machine as a whole.
    pub name: Option<String>,
    /// Where it sits; none for the machine, and for a GPU of which NVML tells only the index.
    pub pci: Option<Address>,
    /// What it needs: `info` for a healthy one.
    pub class: Class,
    /// Only switching the power off and on again helps.
    pub cold: bool,
    /// Why, the decisive first.
    pub evidence: Vec<Evidence>,
}

impl Health {
    /// What it is, and what is wrong with it.
    pub fn says(&self, evidence: &Evidence) -> String {
        match &self.name {
            Some(name) => format!("{name}: {}", evidence.what),
            None => evidence.what.clone(),
        }
    }

    /// Whether it does not work until something is done about it.
    pub fn is_critical(&self) -> bool {
        self.class >= Class::Failed
    }
}

/// Judges the machine, where there is something to say of it, and each of the driver's GPUs, by what was
/// heard and by what NVML said, where it was asked. `ignore` are the PCI addresses of those that NVML is
/// known not to show ([`step::Gpus::ignore`]).
///
/// # Errors
/// The driver's GPUs cannot be listed or looked at.
pub fn judge(root: &Root, log: &Log, nvml: Option<&State>, ignore: &[String]) -> Result<Vec<Health>> {
    let mut bound = Vec::new();
    for name in gpus(root)? {
        let Ok(pci) = name.parse() else { continue };
        let reset_usec = log.resets.get(&pci).copied();
        bound.push((name.clone(), Gpu { on_bus: on_bus(root, &name)?, reset_usec, ..Gpu::at(pci) }));
    }
    let ignore: Vec<Address> = ignore.iter().filter_map(|address| address.parse().ok()).collect();
    Ok(of(bound, &log.messages, nvml, &ignore))
}

/// `bound`: the driver's GPUs, with their names on the bus.
fn of(
    bound: Vec<(String, Gpu)>,
    messages: &[Message],
    nvml: Option<&State>,
    ignore: &[Address],
) -> Vec<Health> {
    let mut names: BTreeMap<Address, String> = BTreeMap::new();
    let mut known: Vec<Gpu> = Vec::new();
    for (name, gpu) in bound {
        names.insert(gpu.pci, format!("GPU {name}"));
        known.push(gpu);
    }
    let nameless = match nvml.filter(|state| matches!(state.nvml, Answer::Ok { .. })) {
        Some(state) => add_nvml(state, &mut known, &mut names, ignore),
        None => Vec::new(),
    };
    let counts = |message: &&Message| match &message.event {
        Event::RmInitFailed { at, .. } => !ignore.contains(&at.pci),
        _ => true,
    };
    let messages: Vec<Message> = messages.iter().filter(counts).cloned().collect();
    let mut judged: Vec<Health> = verdicts(&messages, &known)
        .into_iter()
        .map(|verdict| Health {
            // A switch, or a GPU that the driver does not have any more, has its address only.
            name: verdict.pci.map(|pci| names.get(&pci).cloned().unwrap_or_else(|| format!("GPU {pci}"))),
            pci: verdict.pci,
            class: verdict.class,
            cold: verdict.cold,
            evidence: verdict.evidence,
        })
        .collect();
    judged.extend(nameless.into_iter().map(|(name, state)| {
        // The address does not matter: nothing else is known of it.
        let gpu = Gpu { nvml: Some(state), ..Gpu::at(Address { domain: 0, bus: 0, device: 0 }) };
        let evidence: Vec<Evidence> =
            verdicts(&[], &[gpu]).into_iter().flat_map(|verdict| verdict.evidence).collect();
        let class = evidence.first().map_or(Class::Info, |evidence| evidence.class);
        Health { name: Some(name), pci: None, class, cold: false, evidence }
    }));
    judged
}

/// Adds what NVML says to each GPU of `known`, and that it does not show one. Returns those of which it
/// tells no address, where they may be several: often it tells none of a GPU that is out of use.
fn add_nvml(
    state: &State,
    known: &mut Vec<Gpu>,
    names: &mut BTreeMap<Address, String>,
    ignore: &[Address],
) -> Vec<(String, NvmlState)> {
    let mut nameless: Vec<(u32, NvmlState)> = Vec::new();
    for seen in &state.gpus {
        let (index, address, said) = nvml_state(seen);
        let Some(pci) = address.and_then(|pci| pci.parse::<Address>().ok()) else {
            nameless.push((index, said));
            continue;
        };
        names.insert(pci, format!("GPU {index} ({})", address.unwrap_or_default()));
        match known.iter_mut().find(|gpu| gpu.pci == pci) {
            Some(gpu) => gpu.nvml = Some(said),
            None => known.push(Gpu { nvml: Some(said), ..Gpu::at(pci) }),
        }
    }
    let mut left: Vec<&mut Gpu> =
        known.iter_mut().filter(|gpu| gpu.nvml.is_none() && !ignore.contains(&gpu.pci)).collect();
    let alike = nameless.windows(2).all(|pair| pair[0].1 == pair[1].1);
    if nameless.len() == left.len() && (alike || nameless.len() == 1) {
        // Whichever is which, each has what all have.
        for (gpu, (index, said)) in left.into_iter().zip(nameless) {
            if let Some(name) = names.get_mut(&gpu.pci) {
                *name = format!("GPU {index} ({})", name.trim_start_matches("GPU "));
            }
            gpu.nvml = Some(said);
        }
        return Vec::new();
    }
    if nameless.is_empty() {
        for gpu in &mut left {
            let failed = Some("it is on the bus, and NVML does not show it".to_owned());
            gpu.nvml = Some(NvmlState { failed, ..NvmlState::default() });
        }
    }
    let places: Vec<&str> = left
        .iter()
        .filter_map(|gpu| names.get(&gpu.pci))
        .map(|name| name.trim_start_matches("GPU "))
        .collect();
    let one_of = match places.as_slice() {
        [] => String::new(),
        places => format!(" (one of {})", places.join(", ")),
    };
    nameless.into_iter().map(|(index, said)| (format!("GPU {index}{one_of}"), said)).collect()
}

/// The index of a GPU, its address where NVML tells it, and what NVML says of it.
fn nvml_state(seen: &Reading) -> (u32, Option<&str>, NvmlState) {
    match seen {
        Reading::Ok(gpu) => (
            gpu.index,
            Some(&gpu.pci),
            NvmlState { recovery_action: gpu.health.recovery_action, ..NvmlState::default() },
        ),
        Reading::Trouble { index, pci, trouble, .. } => (
            *index,
            pci.as_deref(),
            NvmlState {
                lost: *trouble == Trouble::Lost,
                reset_required: *trouble == Trouble::ResetRequired,
                failed: match trouble {
                    Trouble::Other(error) => Some(format!("NVML cannot use it: {error}")),
                    Trouble::Lost | Trouble::ResetRequired => None,
                },
                recovery_action: None,
            },
        ),
    }
}

#[cfg(test)]
mod tests;
