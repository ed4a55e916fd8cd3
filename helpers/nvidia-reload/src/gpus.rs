// SPDX-License-Identifier: MIT
//! How the GPUs are, for `status`, `check` and `metrics`: asked for in one way, judged by the common judge.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use gpu::{Answer, Memory, Reading, State, ask_state};
use health::{Health, judge};
use messages::{Log, read_log};
use serde::Serialize;
use step::{Config, Root};
use xid::{Address, Class};

/// The most that is read of what the driver says of a GPU.
const INFORMATION: u64 = 16 << 10;

/// What one GPU needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Its PCI address; null for one of which NVML tells only the index.
    pub pci: Option<String>,
    /// As `nvidia-reload explain` has it; `info` for a healthy one.
    pub class: Class,
    /// Why, the decisive first.
    pub why: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// What NVML said, where it was asked and answered.
    pub nvml: Option<State>,
    /// NVML did not answer in time, or does not start.
    pub trouble: Option<String>,
    /// The machine, where there is something to say of it, and its GPUs.
    pub judged: Vec<Health>,
    /// The PCI addresses of the driver's GPUs.
    pub bound: Vec<String>,
    /// What could not be looked at, in sentences without their end.
    pub unseen: Vec<String>,
}

/// What is known of a GPU beside its health. None is what is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// NVML's index, as `nvidia-smi` shows it.
    pub index: Option<u32>,
    /// The number in the name of its device node.
    pub minor: Option<u32>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// The product's name.
    pub name: Option<String>,
    /// Its memory, in bytes.
    pub memory: Option<Memory>,
}

impl Inventory {
    /// `pci` with its function, as the kernel and `lspci` show it.
    fn full(&self, pci: Address) -> String {
        let known = self.bound.iter().find(|name| name.parse() == Ok(pci));
        known.cloned().unwrap_or_else(|| format!("{pci}.0"))
    }

    /// What else is known of the GPU at `pci`, from NVML and from the driver's own list below `root`.
    pub fn detail(&self, root: &Root, pci: &str, memory: &[Memory]) -> Detail {
        let address: Option<Address> = pci.parse().ok();
        let is_it = |other: &str| other.parse().ok() == address && address.is_some();
        let mut detail = Detail::default();
        // A user may read it as well.
        let path = root.path(format!("/proc/driver/nvidia/gpus/{pci}/information"));
        let mut text = String::new();
        if let Ok(file) = File::open(path)
            && file.take(INFORMATION).read_to_string(&mut text).is_ok()
        {
            let of = |label: &str| text.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
            detail.name = of("Model:").map(str::to_owned);
            // Question marks until the GPU is started.
            detail.uuid = of("GPU UUID:").filter(|uuid| !uuid.contains('?')).map(str::to_owned);
            detail.minor = of("Device Minor:").and_then(|minor| minor.parse().ok());
        }
        for seen in self.nvml.iter().flat_map(|state| &state.gpus) {
            match seen {
                Reading::Ok(gpu) if is_it(&gpu.pci) => {
                    detail.index = Some(gpu.index);
                    detail.uuid = Some(gpu.uuid.clone());
                    detail.name = Some(gpu.name.clone()).filter(|name| !name.is_empty()).or(detail.name);
                }
                Reading::Trouble { index, uuid, pci: Some(pci), .. } if is_it(pci) => {
                    detail.index = Some(*index);
                    detail.uuid = uuid.clone().or(detail.uuid);
                }
                _ => {}
            }
        }
        detail.memory = memory.iter().find(|memory| is_it(&memory.pci)).cloned();
        detail
    }

    /// What each GPU needs.
    pub fn needs(&self) -> Vec<Need> {
        let gpus = self.judged.iter().filter(|health| health.name.is_some());
        gpus.map(|health| Need {
            pci: health.pci.map(|pci| self.full(pci)),
            class: health.class,
            why: health.evidence.iter().map(|evidence| health.says(evidence)).collect(),
        })
        .collect()
    }
}

/// Looks. NVML is waited for so long, and not asked at all where `ask` is false; it wakes up no GPU.
pub fn look(root: &Root, ask: bool, time: Duration) -> Inventory {
    let mut looked = Inventory::default();
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
    looked.bound = modules::gpus(root).unwrap_or_else(|error| {
        looked.unseen.push(format!("the driver's GPUs: {error:#}"));
        Vec::new()
    });
    let log = read_log(root).unwrap_or_else(|error| {
        looked.unseen.push(format!("what the kernel said: {error:#}"));
        Log::default()
    });
    let ignore = Config::load(root).map(|config| config.gpus.ignore).unwrap_or_else(|error| {
        looked.unseen.push(format!("the configuration: {error:#}"));
        Vec::new()
    });
    match judge(root, &log, looked.nvml.as_ref(), &ignore) {
        Ok(judged) => looked.judged = judged,
        Err(error) => looked.unseen.push(format!("the GPUs: {error:#}")),
    }
    looked
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_gpu_has_its_whole_address_and_what_the_driver_says_of_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let of = root.path("/proc/driver/nvidia/gpus/0000:3b:00.0");
        fs::create_dir_all(&of).expect("creates");
        let text = "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-????????-????\nDevice Minor: \t 3\n";
        fs::write(of.join("information"), text).expect("writes");
        let looked =
            Inventory { bound: vec!["0000:3b:00.0".into(), "0000:86:00.1".into()], ..Inventory::default() };
        assert_eq!(looked.full("0000:86:00".parse().expect("is one")), "0000:86:00.1");
        assert_eq!(looked.full("0000:01:00".parse().expect("is one")), "0000:01:00.0");
        let memory = [Memory { pci: "0000:3b:00.0".into(), used: 1, total: 2 }];
        let detail = looked.detail(&root, "0000:3b:00.0", &memory);
        assert_eq!((detail.name.as_deref(), detail.minor, detail.uuid), (Some("NVIDIA H100"), Some(3), None));
        assert_eq!(detail.memory.map(|memory| memory.total), Some(2));
        assert_eq!(looked.detail(&root, "0000:86:00.1", &memory), Detail::default());
    }
}
