// SPDX-License-Identifier: MIT
//! Setting again what was set: in order, read back, and compared.

#![allow(unsafe_code)]

use std::path::Path;

use nvml_wrapper::enums::device::GpuLockedClocksSetting;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

use ledger::{GpuInstance, Setting, Settings};

use crate::mig;
use crate::nvml::start;
use crate::read::{self, Unread};
use crate::state::Trouble;

/// What became of the settings of one GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// What is set now.
    pub set: Vec<Setting>,
    /// What is not as it was, a sentence each. Empty when everything is restored.
    pub differences: Vec<String>,
    /// What deserves attention and is no difference in what was asked for, a sentence each.
    pub notes: Vec<String>,
}

/// Sets `wanted` again, GPU by GPU, and reads back what is set then. The answers are in the order of
/// `wanted`.
///
/// `fallback` is the library to ask where the linker's does not fit the driver.
pub fn restore(wanted: &[Settings], fallback: Option<&Path>) -> Vec<Restored> {
    let all_fail = |why: String| {
        let restored = Restored { differences: vec![why], ..Restored::default() };
        vec![restored; wanted.len()]
    };
    let nvml = match start(fallback) {
        (Ok(nvml), _) => nvml,
        (Err(error), _) => return all_fail(format!("NVML does not start: {error}")),
    };
    let devices = match by_uuid(&nvml) {
        Ok(devices) => devices,
        Err(error) => return all_fail(format!("NVML does not list the GPUs: {error}")),
    };
    wanted
        .iter()
        .map(|wanted| match devices.iter().find(|(uuid, _)| *uuid == wanted.uuid) {
            Some((_, device)) => on(device, &wanted.settings),
            None => Restored {
                differences: vec!["the GPU is not there, or NVML does not show it".into()],
                ..Restored::default()
            },
        })
        .collect()
}

fn by_uuid(nvml: &Nvml) -> Result<Vec<(String, Device<'_>)>, NvmlError> {
    // A GPU that does not answer has no settings; it is missed by its UUID.
    let device = |index| {
        let device = nvml.device_by_index(index).ok()?;
        Some((device.uuid().ok()?, device))
    };
    Ok((0..nvml.device_count()?).filter_map(device).collect())
}

fn on(device: &Device<'_>, wanted: &[Setting]) -> Restored {
    let mut refused: Vec<(&Setting, NvmlError)> = Vec::new();
    // What is set already is not touched: some of it cannot be set twice.
    let there = now(device).unwrap_or_default();
    for setting in wanted {
        if !is_there(setting, &there)
            && let Err(error) = set(device, setting)
        {
            refused.push((setting, error));
        }
    }
    let set = match now(device) {
        Ok(set) => set,
        Err(why) => return Restored { differences: vec![why], ..Restored::default() },
    };
    let mut restored = Restored::default();
    for setting in wanted {
        let error = refused.iter().find(|(refused, _)| *refused == setting).map(|(_, error)| error);
        match error {
            Some(error) => restored.differences.push(format!("{setting}: {error}")),
            // It has no getter: that NVML took it is all that can be known.
            None if matches!(setting, Setting::LockedClocks { .. }) => {}
            None if is_there(setting, &set) => restored.notes.extend(other_numbers(setting, &set)),
            None => restored.differences.push(format!("{setting}: it was set, and is not so when read back")),
        }
    }
    for setting in &set {
        if !is_there(setting, wanted) {
            restored.notes.push(format!("{setting}: it was not so before"));
        }
    }
    restored.set = set;
    restored
}

fn now(device: &Device<'_>) -> Result<Vec<Setting>, String> {
    read::settings(device, &mut Unread::default()).map_err(|trouble| match trouble {
        Trouble::Lost => "the GPU is lost".into(),
        Trouble::ResetRequired => "the GPU requires a reset".into(),
        Trouble::Other(why) => why,
    })
}

/// Whether `setting` is among `all`; of instances the place counts, their numbers are the driver's.
fn is_there(setting: &Setting, all: &[Setting]) -> bool {
    match setting {
        Setting::GpuInstance(wanted) => same_place(wanted, all).is_some_and(|there| {
            there.compute.len() == wanted.compute.len()
                && wanted.compute.iter().all(|one| there.compute.iter().any(|other| other.is_like(one)))
        }),
        setting => all.contains(setting),
    }
}

fn same_place<'a>(wanted: &GpuInstance, all: &'a [Setting]) -> Option<&'a GpuInstance> {
    all.iter().find_map(|setting| match setting {
        Setting::GpuInstance(there) => there.instance.is_like(&wanted.instance).then_some(there),
        _ => None,
    })
}

/// Says so where an instance has another number than before: then its UUID is another, too.
fn other_numbers(setting: &Setting, all: &[Setting]) -> Option<String> {
    let Setting::GpuInstance(wanted) = setting else { return None };
    let there = same_place(wanted, all)?;
    (there != wanted).then(|| {
        format!(
            "{setting}: its number is {}, it was {}; the UUIDs of its MIG devices are new",
            there.instance.id, wanted.instance.id
        )
    })
}

fn set(device: &Device<'_>, setting: &Setting) -> Result<(), NvmlError> {
    // A handle of our own: nvml-wrapper has setters that want it to be mutable.
    // SAFETY: the handle is that of a device of this very library.
    let mut own = unsafe { Device::new(device.handle(), device.nvml()) };
    let lib = device.nvml().lib();
    match setting {
        Setting::Persistence => own.set_persistent(true),
        // The second answer is the activation's: the GPU may have the mode only after a reset.
        Setting::Mig => nvml_try(own.set_mig_mode(true)?),
        Setting::GpuInstance(wanted) => mig::make(device, wanted),
        Setting::ComputeMode { mode } => {
            // SAFETY: the handle is the device's.
            unsafe { nvml_try(nvml_sym(lib.nvmlDeviceSetComputeMode.as_ref())?(device.handle(), *mode)) }
        }
        Setting::Accounting => own.set_accounting(true),
        Setting::ApiRestriction { api, restricted } => {
            let call = nvml_sym(lib.nvmlDeviceSetAPIRestriction.as_ref())?;
            // SAFETY: the handle is the device's.
            unsafe { nvml_try(call(device.handle(), *api, (*restricted).into())) }
        }
        Setting::PowerLimit { milliwatts } => own.set_power_management_limit(*milliwatts),
        Setting::ApplicationClocks { memory, graphics } => own.set_applications_clocks(*memory, *graphics),
        Setting::ClockOffset { clock, pstate, mhz } => {
            let mut info = read::offset(*clock, *pstate, *mhz);
            // SAFETY: the handle is the device's, and the structure NVML's own, which outlives the call.
            unsafe { nvml_try(nvml_sym(lib.nvmlDeviceSetClockOffsets.as_ref())?(device.handle(), &mut info)) }
        }
        Setting::LockedClocks { memory: true, lowest, highest } => {
            own.set_mem_locked_clocks(*lowest, *highest)
        }
        Setting::LockedClocks { memory: false, lowest, highest } => {
            own.set_gpu_locked_clocks(GpuLockedClocksSetting::Numeric {
                min_clock_mhz: *lowest,
                max_clock_mhz: *highest,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Instance;

    fn gpu(id: u32, start: u32, compute: &[u32]) -> Setting {
        let compute =
            compute.iter().map(|start| Instance { id: *start, profile: 0, start: *start, size: 1 }).collect();
        Setting::GpuInstance(GpuInstance { instance: Instance { id, profile: 9, start, size: 4 }, compute })
    }

    #[test]
    fn an_instance_is_there_when_its_place_is_taken_by_its_like() {
        let wanted = gpu(2, 4, &[0, 1]);
        assert!(is_there(&wanted, &[Setting::Mig, gpu(1, 4, &[1, 0])]));
        assert!(!is_there(&wanted, &[gpu(2, 0, &[0, 1])]));
        assert!(!is_there(&wanted, &[gpu(2, 4, &[0])]));
        assert!(!is_there(&wanted, &[gpu(2, 4, &[0, 1, 2])]));
    }

    #[test]
    fn an_instance_with_another_number_is_noted() {
        let wanted = gpu(2, 4, &[0]);
        assert_eq!(other_numbers(&wanted, std::slice::from_ref(&wanted)), None);
        let note = other_numbers(&wanted, &[gpu(1, 4, &[0])]).expect("is noted");
        assert!(note.contains("its number is 1, it was 2"), "{note}");
    }
}
