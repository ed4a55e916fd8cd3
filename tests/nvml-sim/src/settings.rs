// SPDX-License-Identifier: MIT
//! What can be set, and where it is kept: as long as the module stays loaded.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// Where the settings are stored. Not in a place of files that last: the real ones are in the driver's
/// memory.
pub const FILE: &str = "/dev/shm/nvml-sim.json";

/// What was set on one GPU; what was not has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Persistence mode.
    pub persistence: bool,
    /// In milliwatts.
    pub power_limit: Option<u32>,
    /// Of memory and graphics, in MHz.
    pub application_clocks: Option<(u32, u32)>,
    /// Offset in MHz by type of clock and performance state, as `TYPE/STATE`.
    pub clock_offsets: BTreeMap<String, i32>,
    /// Lowest and highest, in MHz.
    pub gpu_locked_clocks: Option<(u32, u32)>,
    /// Lowest and highest, in MHz.
    pub memory_locked_clocks: Option<(u32, u32)>,
    /// `nvmlComputeMode_t`.
    pub compute_mode: u32,
    /// Accounting mode.
    pub accounting: bool,
    /// Whether everyone may set the applications clocks.
    pub everyone_sets_clocks: bool,
    /// Whether only root may set auto boost.
    pub root_sets_auto_boost: bool,
    /// MIG mode.
    pub mig: bool,
    /// The GPU instances.
    pub gpu_instances: Vec<Instance>,
}

/// A GPU instance or, within one, a compute instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Instance {
    /// Its number on its parent.
    pub id: u32,
    /// The profile's id.
    pub profile: u32,
    /// Where it begins.
    pub start: u32,
    /// How wide it is.
    pub size: u32,
    /// The compute instances in it.
    pub compute: Vec<Instance>,
}

/// The settings of all GPUs, by UUID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The load of the module that they belong to.
    pub generation: u64,
    /// By UUID.
    pub gpus: BTreeMap<String, Settings>,
}

impl Stored {
    /// What is left of them in `generation`: all, or after a load what lies in the GPU itself.
    fn left_in(self, generation: u64, config: &Config) -> Self {
        if self.generation == generation {
            return self;
        }
        let survives = |uuid: &str| {
            let gpu = config.gpu.iter().find(|gpu| gpu.uuid.as_deref() == Some(uuid));
            gpu.is_some_and(|gpu| gpu.mig_mode_survives)
        };
        let gpus = self.gpus.into_iter().map(|(uuid, settings)| {
            let mig = settings.mig && survives(&uuid);
            (uuid, Settings { mig, ..Settings::default() })
        });
        Self { generation, gpus: gpus.collect() }
    }
}

/// Lets `act` see and change the settings as they are in `generation`.
///
/// # Errors
/// The file cannot be read or written.
pub fn with<T>(
    path: &Path,
    generation: u64,
    config: &Config,
    act: impl FnOnce(&mut Stored) -> T,
) -> Result<T> {
    let (stored, file) = open(path)?;
    let mut now = stored.clone().left_in(generation, config);
    let result = act(&mut now);
    // A process that only looks may have no right to write.
    if now != stored
        && let Some(mut file) = file
    {
        let text = serde_json::to_vec(&now)?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(&text))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(result)
}

fn open(path: &Path) -> Result<(Stored, Option<File>)> {
    let writable = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let Ok(mut file) = writable else {
        let stored = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        return Ok((stored.unwrap_or_default(), None));
    };
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).with_context(|| format!("read {}", path.display()))?;
    let stored = if text.is_empty() { Stored::default() } else { serde_json::from_slice(&text)? };
    Ok((stored, Some(file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Gpu;

    #[test]
    fn a_new_load_of_the_module_loses_what_was_set() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("kept");
        let gpu = |uuid: &str, mig_mode_survives| Gpu {
            uuid: Some(uuid.into()),
            mig_mode_survives,
            ..Gpu::default()
        };
        let config = Config { gpu: vec![gpu("a", true), gpu("b", false)], ..Config::default() };
        let set = Settings { mig: true, power_limit: Some(1), ..Settings::default() };
        with(&path, 1, &config, |stored| {
            stored.gpus = [("a".to_owned(), set.clone()), ("b".to_owned(), set.clone())].into();
        })
        .expect("writes");
        with(&path, 1, &config, |stored| assert_eq!(stored.gpus["b"], set)).expect("reads");
        with(&path, 2, &config, |stored| {
            assert_eq!(stored.gpus["a"], Settings { mig: true, ..Settings::default() });
            assert_eq!(stored.gpus["b"], Settings::default());
        })
        .expect("reads");
    }
}
