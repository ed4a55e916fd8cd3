// SPDX-License-Identifier: MIT
//! The GPUs and their faults, as the file describes them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Where the description lies, unless the environment variable `NVML_SIM` names another file. A fixed
/// place, since the helpers run under systemd.
pub const FILE: &str = "/etc/nvml-sim.toml";

/// The whole description.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// What NVML calls the driver's version; without it, that of the loaded module.
    pub driver_version: Option<String>,
    /// Whether confidential computing is on.
    pub confidential_computing: bool,
    /// The GPUs, in the order of their indices.
    pub gpu: Vec<Gpu>,
    /// What goes wrong.
    pub fault: Vec<Fault>,
}

/// One GPU, or several that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gpu {
    /// How many there are of the kind.
    pub count: u32,
    /// The PCI address; without it, that of the GPU of this index among those bound to the driver.
    pub pci: Option<String>,
    /// The UUID; without it, one that ends with the index.
    pub uuid: Option<String>,
    /// Whether it can do MIG.
    pub mig: bool,
    /// Whether the MIG mode outlives the driver, as on Ampere.
    pub mig_mode_survives: bool,
    /// The default power limit, in milliwatts.
    pub power_default: u32,
    /// The lowest and highest power limit, in milliwatts.
    pub power_range: (u32, u32),
    /// The default applications clocks of memory and graphics, in MHz.
    pub clocks_default: (u32, u32),
    /// ECC now and after the next load.
    pub ecc: Option<(bool, bool)>,
    /// What MIG mode would be after the next load, where that is not what it is now.
    pub mig_pending: Option<bool>,
    /// Field 230; without it, the driver does not have the field.
    pub recovery_action: Option<u32>,
    /// Rows remapped for correctable and uncorrectable errors, whether a remapping is pending, and
    /// whether one failed.
    pub remapped_rows: Option<(u32, u32, bool, bool)>,
    /// Whether retired pages are pending.
    pub retired_pages_pending: Option<bool>,
    /// State and status of the fabric.
    pub fabric: Option<(u8, u32)>,
    /// The generation, by NVML's numbers (`NVML_DEVICE_ARCH_…`).
    pub architecture: u32,
    /// The active NVLinks: the PCI address of the GPU at the other end, or `switch`.
    pub links: Vec<String>,
    /// What somebody had set when `nvml-sim install` ran.
    pub set: crate::settings::Settings,
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            count: 1,
            pci: None,
            uuid: None,
            mig: false,
            mig_mode_survives: false,
            power_default: 400_000,
            power_range: (100_000, 400_000),
            clocks_default: (1593, 1410),
            ecc: Some((true, true)),
            mig_pending: None,
            recovery_action: None,
            remapped_rows: Some((0, 0, false, false)),
            retired_pages_pending: None,
            fabric: None,
            architecture: nvml_wrapper_sys::bindings::NVML_DEVICE_ARCH_HOPPER,
            links: Vec::new(),
            set: crate::settings::Settings::default(),
        }
    }
}

/// Something that goes wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// Only on the GPU of this index.
    pub gpu: Option<u32>,
    /// Only while the module of this version is loaded.
    pub driver: Option<String>,
    /// Only in these calls.
    pub calls: Vec<String>,
    /// The call answers with this number of `nvmlReturn_t`.
    pub error: Option<u32>,
    /// The call never returns.
    pub hang: bool,
    /// The GPU is not there: it is not counted, and has no handle.
    pub gone: bool,
    /// Field 230 has this value.
    pub recovery_action: Option<u32>,
    /// A remapping of rows is pending.
    pub remapping_pending: bool,
}

impl Config {
    /// Reads the description.
    ///
    /// # Errors
    /// There is none, or it makes no sense: file and key are named.
    pub fn load() -> Result<Self> {
        let path = std::env::var_os("NVML_SIM").map_or_else(|| PathBuf::from(FILE), PathBuf::from);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let config: Config = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
        Ok(config.spread())
    }

    /// Each GPU by itself, with its UUID.
    fn spread(mut self) -> Self {
        let mut gpus: Vec<Gpu> = Vec::new();
        for kind in self.gpu {
            for _ in 0..kind.count {
                let index = gpus.len();
                let uuid =
                    kind.uuid.clone().unwrap_or_else(|| format!("GPU-51a1e000-0000-4000-8000-{index:012}"));
                gpus.push(Gpu { count: 1, uuid: Some(uuid), ..kind.clone() });
            }
        }
        self.gpu = gpus;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_that_are_alike_have_uuids_of_their_own() {
        let config: Config = toml::from_str("[[gpu]]\ncount = 2\nmig = true").expect("parses");
        let config = config.spread();
        assert_eq!(config.gpu.len(), 2);
        assert!(config.gpu.iter().all(|gpu| gpu.mig));
        assert_ne!(config.gpu[0].uuid, config.gpu[1].uuid);
    }

    #[test]
    fn a_mistake_is_named() {
        let error = toml::from_str::<Config>("[[gpu]]\npowr = 1").expect_err("must refuse");
        assert!(error.to_string().contains("powr"), "{error}");
    }
}
