// SPDX-License-Identifier: MIT
//! The questions to NVML, asked in this very process: only for one that ends right after.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

use crate::state::{Answer, Library, State};
use crate::{guard, read};

/// The name that programs link against; the file behind it carries the version.
const SONAME: &str = "libnvidia-ml.so.1";

/// Who uses the GPUs, as NVML lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Usage {
    /// It answered.
    Ok {
        /// One entry a process and GPU, by pid.
        processes: Vec<Used>,
        /// The memory of each GPU, where NVML tells.
        #[serde(default)]
        memory: Vec<Memory>,
        /// What it could not tell, a sentence each.
        problems: Vec<String>,
    },
    /// It does not work; [`state()`] says more.
    No {
        /// NVML's name for why.
        reason: String,
    },
}

/// A process on one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The process, as the initial pid namespace numbers it.
    pub pid: i32,
    /// NVML's index of the GPU.
    pub device: u32,
    /// Memory of the GPU in bytes, where NVML tells (`NVML_VALUE_NOT_AVAILABLE` under MIG without
    /// privileges).
    pub memory: Option<u64>,
}

/// The memory of a GPU, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Its PCI address, as the kernel writes it.
    pub pci: String,
    /// What is in use, for whatever.
    pub used: u64,
    /// All of it.
    pub total: u64,
}

/// Which library the linker chooses. Talks to no driver.
///
/// # Errors
/// `/proc/self/maps` cannot be read.
pub fn library() -> anyhow::Result<Library> {
    open().map(|(_, library)| library)
}

/// Opens the library that the linker chooses, and finds which it is.
fn open() -> anyhow::Result<(Option<libloading::Library>, Library)> {
    // SAFETY: NVIDIA's library has constructors that touch nothing outside of it.
    let opened = match unsafe { libloading::Library::new(SONAME) } {
        Ok(opened) => opened,
        Err(error) => return Ok((None, Library::Absent { reason: error.to_string() })),
    };
    let maps = fs::read_to_string("/proc/self/maps").context("read /proc/self/maps")?;
    let path = maps
        .lines()
        .filter_map(|line| line.splitn(6, ' ').nth(5))
        .map(|path| PathBuf::from(path.trim_start()))
        .find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvidia-ml.so"))
        })
        .with_context(|| format!("{SONAME} is open and not in /proc/self/maps"))?;
    let version = path
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("libnvidia-ml.so.").map(str::to_owned))
        .filter(|version| version.contains('.'));
    Ok((Some(opened), Library::Found { path, version }))
}

/// How NVML and every GPU is. Where the linker's library is of another version than the loaded driver,
/// as an upgrade leaves it, `fallback` is asked instead, if it is there. With `if_started`, NVML is asked
/// only if a GPU was started since the driver was loaded: to ask wakes up every GPU.
///
/// # Errors
/// `/proc/self/maps` cannot be read.
pub fn state(fallback: Option<&Path>, if_started: bool) -> anyhow::Result<State> {
    // It stays open: to load it once is enough.
    let (_opened, library) = open()?;
    if if_started && is_asleep(Path::new(GPUS)) {
        return Ok(State {
            library,
            instead: None,
            nvml: Answer::Asleep,
            confidential_computing: None,
            gpus: Vec::new(),
        });
    }
    let (started, instead) = start(fallback);
    let mut state =
        State { library, instead, nvml: Answer::NotLoaded, confidential_computing: None, gpus: Vec::new() };
    match started {
        Ok(nvml) => {
            state.nvml = answer(of(&nvml));
            if let Answer::Ok { devices, .. } = state.nvml {
                state.confidential_computing = read::confidential_computing(&nvml);
                state.gpus = (0..devices).map(|index| read::gpu(&nvml, index)).collect();
            }
        }
        Err(error) => state.nvml = answer(Err(error)),
    }
    Ok(state)
}

/// Where the driver lists its GPUs.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// Whether there are GPUs below `list`, and none was started since the driver was loaded: the driver
/// writes question marks for the UUID of a GPU until it knows it.
fn is_asleep(list: &Path) -> bool {
    let Ok(entries) = fs::read_dir(list) else { return false };
    let mut any = false;
    for entry in entries {
        let text = entry.and_then(|entry| fs::read_to_string(entry.path().join("information")));
        let Ok(text) = text else { return false };
        let uuid = text.lines().find_map(|line| line.strip_prefix("GPU UUID:"));
        if !uuid.is_some_and(|uuid| uuid.contains('?')) {
            return false;
        }
        any = true;
    }
    any
}

/// Starts NVML with the linker's library; with `fallback` where that does not fit the loaded driver. Says
/// whether it was that. Without a driver it is not started: it would load one.
pub(crate) fn start(fallback: Option<&Path>) -> (Result<Nvml, NvmlError>, Option<PathBuf>) {
    if !guard::is_loaded() {
        return (Err(NvmlError::DriverNotLoaded), None);
    }
    let init = |library: &OsStr| Nvml::builder().lib_path(library).init();
    match (init(SONAME.as_ref()), fallback) {
        (Err(NvmlError::LibRmVersionMismatch), Some(fallback)) if fallback.exists() => {
            (init(fallback.as_os_str()), Some(fallback.to_owned()))
        }
        (started, _) => (started, None),
    }
}

fn of(nvml: &Nvml) -> Result<Answer, NvmlError> {
    Ok(Answer::Ok { driver_version: nvml.sys_driver_version()?, devices: nvml.device_count()? })
}

fn answer(said: Result<Answer, NvmlError>) -> Answer {
    match said {
        Ok(answer) => answer,
        Err(NvmlError::LibRmVersionMismatch) => Answer::Mismatch,
        Err(NvmlError::DriverNotLoaded) => Answer::NotLoaded,
        Err(NvmlError::LibloadingError(error)) => Answer::NoLibrary { reason: error.to_string() },
        Err(error) => Answer::Failed { reason: error.to_string() },
    }
}

/// Starts NVML, asks for its lists of compute, graphics and MPS processes, and ends it.
pub fn usage() -> Usage {
    let listed = start(None).0.and_then(|nvml| {
        let (mut processes, mut memory, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..nvml.device_count()? {
            match nvml.device_by_index(index) {
                Ok(device) => {
                    processes.extend(of_device(index, &device, &mut problems));
                    memory.extend(memory_of(&device));
                }
                Err(error) => problems.push(format!("NVML does not show GPU {index}: {error}.")),
            }
        }
        processes.sort_by_key(|used| (used.pid, used.device));
        Ok(Usage::Ok { processes, memory, problems })
    });
    listed.unwrap_or_else(|error| Usage::No { reason: error.to_string() })
}

/// None where NVML does not tell: memory that is the machine's own, for instance.
fn memory_of(device: &Device<'_>) -> Option<Memory> {
    let pci = read::as_kernel(&device.pci_info().ok()?.bus_id)?;
    let memory = device.memory_info().ok()?;
    Some(Memory { pci, used: memory.used, total: memory.total })
}

fn of_device(index: u32, device: &Device<'_>, problems: &mut Vec<String>) -> Vec<Used> {
    let mut found = Vec::new();
    for (what, list) in [
        ("compute", device.running_compute_processes()),
        ("graphics", device.running_graphics_processes()),
        ("MPS", device.mps_running_compute_processes()),
    ] {
        match list {
            Ok(list) => found.extend(list),
            // GPUs without MPS or graphics, and libraries from before there was the list.
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {}
            Err(error) => {
                problems.push(format!("NVML does not list the {what} processes of GPU {index}: {error}."))
            }
        }
    }
    once_each(index, &found)
}

/// A process that computes and draws is in two lists, with the same memory in both.
fn once_each(device: u32, listed: &[ProcessInfo]) -> Vec<Used> {
    let mut processes: BTreeMap<i32, Option<u64>> = BTreeMap::new();
    for process in listed {
        let Ok(pid) = i32::try_from(process.pid) else { continue };
        let memory = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let known = processes.entry(pid).or_default();
        *known = memory.max(*known);
    }
    processes.into_iter().map(|(pid, memory)| Used { pid, device, memory }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_asleep_while_the_driver_knows_no_uuid() {
        let list = tempfile::tempdir().expect("a temporary directory");
        assert!(!is_asleep(&list.path().join("missing")));
        assert!(!is_asleep(list.path()));
        let unknown = "GPU-????????-????-????-????-????????????";
        for (gpu, uuid, asleep) in [
            ("0000:01:00.0", unknown, true),
            ("0000:02:00.0", unknown, true),
            ("0000:03:00.0", "GPU-51a1e000-0000-4000-8000-000000000000", false),
        ] {
            let gpu = list.path().join(gpu);
            fs::create_dir(&gpu).expect("creates");
            let text = format!("Model: \t\t NVIDIA H100\nIRQ:   \t\t 16\nGPU UUID: \t {uuid}\n");
            fs::write(gpu.join("information"), text).expect("writes");
            assert_eq!(is_asleep(list.path()), asleep);
        }
    }

    #[test]
    fn a_process_in_two_lists_counts_once() {
        let process = |pid, used_gpu_memory| ProcessInfo {
            pid,
            used_gpu_memory,
            gpu_instance_id: None,
            compute_instance_id: None,
        };
        let listed = [
            process(7, UsedGpuMemory::Used(5)),
            process(9, UsedGpuMemory::Unavailable),
            process(7, UsedGpuMemory::Unavailable),
            process(7, UsedGpuMemory::Used(5)),
        ];
        let expected =
            [Used { pid: 7, device: 1, memory: Some(5) }, Used { pid: 9, device: 1, memory: None }];
        assert_eq!(once_each(1, &listed), expected);
    }
}
