// SPDX-License-Identifier: MIT
//! GPU instances and compute instances: which there are, and making them in their places.

#![allow(unsafe_code)]

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::*;

use ledger::{GpuInstance, Instance};

type Result<T> = std::result::Result<T, NvmlError>;

/// How many profiles are asked for: more than any version of nvml.h knows, which ends at 17 in 13.0;
/// those that a library does not know are invalid.
const PROFILES: u32 = 32;

/// The GPU instances with the compute instances in them, by their numbers, and NVML's handles.
///
/// # Errors
/// NVML's; `NoPermission` without CAP_SYS_ADMIN.
pub(crate) fn instances(device: &Device<'_>) -> Result<Vec<(nvmlGpuInstance_t, GpuInstance)>> {
    let lib = device.nvml().lib();
    let profiles = nvml_sym(lib.nvmlDeviceGetGpuInstanceProfileInfo.as_ref())?;
    let list = nvml_sym(lib.nvmlDeviceGetGpuInstances.as_ref())?;
    let describe = nvml_sym(lib.nvmlGpuInstanceGetInfo.as_ref())?;
    let mut found = Vec::new();
    for profile in 0..PROFILES {
        // SAFETY: the handle is the device's, the structures are NVML's own, the array has room for as
        // many instances as the profile can have (nvml.h), and all outlive the calls.
        unsafe {
            let mut info: nvmlGpuInstanceProfileInfo_t = std::mem::zeroed();
            if !has(profiles(device.handle(), profile, &mut info))? {
                continue;
            }
            let mut handles = vec![std::ptr::null_mut(); info.instanceCount as usize];
            let mut count = info.instanceCount;
            nvml_try(list(device.handle(), info.id, handles.as_mut_ptr(), &mut count))?;
            for handle in handles.into_iter().take(count as usize) {
                let mut info: nvmlGpuInstanceInfo_t = std::mem::zeroed();
                nvml_try(describe(handle, &mut info))?;
                let instance = Instance {
                    id: info.id,
                    profile: info.profileId,
                    start: info.placement.start,
                    size: info.placement.size,
                };
                found.push((handle, GpuInstance { instance, compute: compute_instances(device, handle)? }));
            }
        }
    }
    found.sort_by_key(|(_, gpu)| gpu.instance);
    Ok(found)
}

fn compute_instances(device: &Device<'_>, gpu: nvmlGpuInstance_t) -> Result<Vec<Instance>> {
    let lib = device.nvml().lib();
    let profiles = nvml_sym(lib.nvmlGpuInstanceGetComputeInstanceProfileInfo.as_ref())?;
    let list = nvml_sym(lib.nvmlGpuInstanceGetComputeInstances.as_ref())?;
    let describe = nvml_sym(lib.nvmlComputeInstanceGetInfo_v2.as_ref())?;
    let mut found = Vec::new();
    for profile in 0..PROFILES {
        // SAFETY: as for GPU instances.
        unsafe {
            let mut info: nvmlComputeInstanceProfileInfo_t = std::mem::zeroed();
            // Engine profile 0: shared, the only one there is (nvml.h).
            if !has(profiles(gpu, profile, 0, &mut info))? {
                continue;
            }
            let mut handles = vec![std::ptr::null_mut(); info.instanceCount as usize];
            let mut count = info.instanceCount;
            nvml_try(list(gpu, info.id, handles.as_mut_ptr(), &mut count))?;
            for handle in handles.into_iter().take(count as usize) {
                let mut info: nvmlComputeInstanceInfo_t = std::mem::zeroed();
                nvml_try(describe(handle, &mut info))?;
                found.push(Instance {
                    id: info.id,
                    profile: info.profileId,
                    start: info.placement.start,
                    size: info.placement.size,
                });
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether there is such a profile.
fn has(said: nvmlReturn_t) -> Result<bool> {
    match nvml_try(said) {
        Ok(()) => Ok(true),
        Err(NvmlError::NotSupported | NvmlError::InvalidArg) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes what is missing of `wanted`, each instance in its place.
///
/// # Errors
/// NVML's: the place is taken, or no such instance can be there.
pub(crate) fn make(device: &Device<'_>, wanted: &GpuInstance) -> Result<()> {
    let lib = device.nvml().lib();
    let there = instances(device)?;
    let like = there.iter().find(|(_, gpu)| gpu.instance.is_like(&wanted.instance));
    let (gpu, compute) = match like {
        Some((handle, gpu)) => (*handle, gpu.compute.as_slice()),
        None => (make_gpu_instance(device, &wanted.instance)?, [].as_slice()),
    };
    for one in &wanted.compute {
        if compute.iter().any(|other| other.is_like(one)) {
            continue;
        }
        let placement = nvmlComputeInstancePlacement_t { start: one.start, size: one.size };
        let mut handle = std::ptr::null_mut();
        // SAFETY: the handle is of a GPU instance that is there, and the places outlive the call.
        let said = unsafe {
            match nvml_sym(lib.nvmlGpuInstanceCreateComputeInstanceWithPlacement.as_ref()) {
                Ok(call) => call(gpu, one.profile, &placement, &mut handle),
                // A library that lacks it puts instances in their order: the same one, as they were made.
                Err(_) => {
                    let call = nvml_sym(lib.nvmlGpuInstanceCreateComputeInstance.as_ref())?;
                    call(gpu, one.profile, &mut handle)
                }
            }
        };
        nvml_try(said)?;
    }
    Ok(())
}

fn make_gpu_instance(device: &Device<'_>, wanted: &Instance) -> Result<nvmlGpuInstance_t> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceCreateGpuInstanceWithPlacement.as_ref())?;
    let placement = nvmlGpuInstancePlacement_t { start: wanted.start, size: wanted.size };
    let mut handle = std::ptr::null_mut();
    // SAFETY: the handle is the device's, and the places outlive the call.
    unsafe { nvml_try(call(device.handle(), wanted.profile, &placement, &mut handle))? };
    Ok(handle)
}
