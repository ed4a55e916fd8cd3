// SPDX-License-Identifier: MIT
//! What is to be known of the GPUs.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What is to be known of the GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gpus {
    /// Whether a reload may apply changes of ECC or MIG mode that wait for one.
    pub allow_pending_changes: bool,
    /// PCI addresses of GPUs that are bound to the driver and that NVML is known not to show: that they do
    /// not start is no fault.
    pub ignore: Vec<String>,
    /// The locked clocks of all GPUs, lowest and highest in MHz: NVML has no call that reads them.
    pub locked_gpu_clocks: Option<(u32, u32)>,
    /// Those of their memory.
    pub locked_memory_clocks: Option<(u32, u32)>,
    /// Those of single GPUs, by UUID.
    pub by_uuid: BTreeMap<String, LockedClocks>,
}

/// Locked clocks, each the lowest and the highest in MHz.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedClocks {
    /// Of the GPU.
    pub locked_gpu_clocks: Option<(u32, u32)>,
    /// Of its memory.
    pub locked_memory_clocks: Option<(u32, u32)>,
}

impl Gpus {
    /// The locked clocks of the GPU `uuid`; what is said of it alone wins.
    pub fn locked_clocks(&self, uuid: &str) -> LockedClocks {
        let own = self.by_uuid.get(uuid).copied().unwrap_or_default();
        LockedClocks {
            locked_gpu_clocks: own.locked_gpu_clocks.or(self.locked_gpu_clocks),
            locked_memory_clocks: own.locked_memory_clocks.or(self.locked_memory_clocks),
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        for address in &self.ignore {
            if !is_pci(address) {
                anyhow::bail!("gpus.ignore: {address:?} is no PCI address as `lspci -D` shows them");
            }
        }
        for uuid in self.by_uuid.keys() {
            if !uuid.starts_with("GPU-") {
                anyhow::bail!("gpus.by-uuid: {uuid:?} is no GPU's UUID: `nvidia-smi -L` shows them");
            }
        }
        let all = self.locked_clocks("");
        for locked in self.by_uuid.values().chain([&all]) {
            for (key, clocks) in [
                ("locked-gpu-clocks", locked.locked_gpu_clocks),
                ("locked-memory-clocks", locked.locked_memory_clocks),
            ] {
                if let Some((lowest, highest)) = clocks.filter(|(lowest, highest)| lowest > highest) {
                    anyhow::bail!("gpus: {key} = [{lowest}, {highest}]: the lowest comes first");
                }
            }
        }
        Ok(())
    }
}

/// Whether it is `0000:3b:00.0`, or another in this form.
fn is_pci(address: &str) -> bool {
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let Some((device, function)) = address.rsplit_once('.') else { return false };
    let [domain, bus, device] = device.split(':').collect::<Vec<_>>()[..] else { return false };
    is_hex(domain, 4) && is_hex(bus, 2) && is_hex(device, 2) && is_hex(function, 1)
}
