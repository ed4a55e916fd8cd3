// SPDX-License-Identifier: MIT
//! How the GPUs are, for `status`, `check` and `metrics`: asked for in one way, judged by the common judge.

use std::time::Duration;

use gpu::{Answer, State, ask_state};
use health::{Health, judge};
use messages::{Heard, hear};
use serde::Serialize;
use step::{Config, Root};
use xid::Class;

/// What one GPU needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Its PCI address, without the function; null for one of which NVML tells only the index.
    pub pci: Option<String>,
    /// As `nvidia-reload explain` has it; `info` for a healthy one.
    pub class: Class,
    /// Why, the decisive first.
    pub why: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// What NVML said, where it was asked and answered.
    pub nvml: Option<State>,
    /// NVML did not answer in time, or does not start.
    pub trouble: Option<String>,
    /// The machine, where there is something to say of it, and its GPUs.
    pub judged: Vec<Health>,
    /// What could not be looked at, in sentences without their end.
    pub unseen: Vec<String>,
}

impl Looked {
    /// What each GPU needs.
    pub fn needs(&self) -> Vec<Need> {
        let gpus = self.judged.iter().filter(|health| health.name.is_some());
        gpus.map(|health| Need {
            pci: health.pci.map(|pci| pci.to_string()),
            class: health.class,
            why: health.evidence.iter().map(|evidence| health.says(evidence)).collect(),
        })
        .collect()
    }
}

/// Looks. NVML is waited for so long, and not asked at all where `ask` is false; it wakes up no GPU.
pub fn look(root: &Root, ask: bool, time: Duration) -> Looked {
    let mut looked = Looked::default();
    if ask {
        match ask_state(&root.path(gpu::HELPER), None, true, time) {
            Ok(None) => looked.trouble = Some(format!("NVML did not answer in {} seconds", time.as_secs())),
            Ok(state) => looked.nvml = state,
            Err(error) => looked.unseen.push(format!("what NVML says: {error:#}")),
        }
    }
    if let Some(Answer::Failed { reason }) = looked.nvml.as_ref().map(|state| &state.nvml) {
        looked.trouble = Some(format!("NVML does not start: {reason}"));
    }
    let heard = hear(root).unwrap_or_else(|error| {
        looked.unseen.push(format!("what the kernel said: {error:#}"));
        Heard::default()
    });
    let ignore = Config::load(root).map(|config| config.gpus.ignore).unwrap_or_else(|error| {
        looked.unseen.push(format!("the configuration: {error:#}"));
        Vec::new()
    });
    match judge(root, &heard, looked.nvml.as_ref(), &ignore) {
        Ok(judged) => looked.judged = judged,
        Err(error) => looked.unseen.push(format!("the GPUs: {error:#}")),
    }
    looked
}
