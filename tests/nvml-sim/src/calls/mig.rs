// SPDX-License-Identifier: MIT
//! MIG: the mode, and GPU and compute instances with their places.

#![allow(unsafe_code)]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use super::calls;
use crate::place::{Outcome, put, put_all};
use crate::profiles::{GPU_INSTANCES, Profile, compute_instances};
use crate::session::{Call, Handle};
use crate::settings::{Instance, Settings};

calls! {
    nvmlDeviceGetMigMode(device: Handle, current: Option<&mut c_uint>, pending: Option<&mut c_uint>) =
        |call| {
            let (_, gpu) = call.gpu(device)?;
            let on = look(call, device, |set| set.mig)?;
            put(current, on.into())?;
            put(pending, gpu.mig_pending.unwrap_or(on).into())
        };
    nvmlDeviceSetMigMode(device: Handle, mode: c_uint, activation: Option<&mut nvmlReturn_t>) = |call| {
        change(call, device, |set| {
            set.mig = mode == NVML_DEVICE_MIG_ENABLE;
            set.gpu_instances.clear();
            Ok(())
        })?;
        put(activation, nvmlReturn_enum_NVML_SUCCESS)
    };
    nvmlDeviceGetGpuInstanceProfileInfo(
        device: Handle,
        profile: c_uint,
        info: Option<&mut nvmlGpuInstanceProfileInfo_t>,
    ) = |call| {
        enabled(look(call, device, |set| set.mig)?)?;
        let found = by_number(GPU_INSTANCES, profile, NVML_GPU_INSTANCE_PROFILE_COUNT)?;
        put(info, nvmlGpuInstanceProfileInfo_t {
            id: found.id,
            isP2pSupported: 0,
            sliceCount: found.slices,
            instanceCount: found.instances,
            multiprocessorCount: found.slices * 14,
            copyEngineCount: found.slices,
            decoderCount: 0,
            encoderCount: 0,
            jpegCount: 0,
            ofaCount: 0,
            memorySizeMB: u64::from(found.size) * 4864,
        })
    };
    nvmlDeviceGetGpuInstances(
        device: Handle,
        profile: c_uint,
        instances: *mut Handle,
        count: Option<&mut c_uint>,
    ) = |call| {
        call.administrator()?;
        let found = by_id(GPU_INSTANCES, profile)?;
        let ids = look(call, device, |set| ids(&set.gpu_instances, profile))?;
        let handles: Vec<Handle> = ids.into_iter().map(|id| handle(device, id, 0)).collect();
        // SAFETY: the caller's array has room for as many as the profile has (nvml.h).
        unsafe { put_all(instances, found.instances, count, &handles) }
    };
    nvmlGpuInstanceGetInfo(instance: Handle, info: Option<&mut nvmlGpuInstanceInfo_t>) = |call| {
        let of = GpuInstance::look(call, instance)?;
        put(info, nvmlGpuInstanceInfo_t {
            device: parts(instance).0 as nvmlDevice_t,
            id: of.id,
            profileId: of.profile,
            placement: nvmlGpuInstancePlacement_t { start: of.start, size: of.size },
        })
    };
    nvmlDeviceCreateGpuInstanceWithPlacement(
        device: Handle,
        profile: c_uint,
        placement: Option<&nvmlGpuInstancePlacement_t>,
        instance: Option<&mut Handle>,
    ) = |call| {
        let at = placement.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let found = by_id(GPU_INSTANCES, profile)?;
        let id = change(call, device, |set| {
            enabled(set.mig)?;
            make(&mut set.gpu_instances, &found, at.start, at.size)
        })?;
        put(instance, handle(device, id, 0))
    };
    nvmlGpuInstanceDestroy(instance: Handle) = |call| {
        let (device, id, _) = parts(instance);
        change(call, device, |set| {
            let at = set.gpu_instances.iter().position(|one| one.id == id).ok_or(NOT_FOUND)?;
            if !set.gpu_instances[at].compute.is_empty() {
                return Err(nvmlReturn_enum_NVML_ERROR_IN_USE);
            }
            set.gpu_instances.remove(at);
            Ok(())
        })
    };
    nvmlGpuInstanceGetComputeInstanceProfileInfo(
        instance: Handle,
        profile: c_uint,
        _engine: c_uint,
        info: Option<&mut nvmlComputeInstanceProfileInfo_t>,
    ) = |call| {
        let of = GpuInstance::look(call, instance)?;
        let found = by_number(&of.profiles()?, profile, NVML_COMPUTE_INSTANCE_PROFILE_COUNT)?;
        put(info, nvmlComputeInstanceProfileInfo_t {
            id: found.id,
            sliceCount: found.slices,
            instanceCount: found.instances,
            multiprocessorCount: found.slices * 14,
            sharedCopyEngineCount: 0,
            sharedDecoderCount: 0,
            sharedEncoderCount: 0,
            sharedJpegCount: 0,
            sharedOfaCount: 0,
        })
    };
    nvmlGpuInstanceGetComputeInstances(
        instance: Handle,
        profile: c_uint,
        instances: *mut Handle,
        count: Option<&mut c_uint>,
    ) = |call| {
        call.administrator()?;
        let of = GpuInstance::look(call, instance)?;
        let found = by_id(&of.profiles()?, profile)?;
        let (device, id, _) = parts(instance);
        let handles: Vec<Handle> =
            ids(&of.compute, profile).into_iter().map(|compute| handle(device, id, compute + 1)).collect();
        // SAFETY: the caller's array has room for as many as the profile has (nvml.h).
        unsafe { put_all(instances, found.instances, count, &handles) }
    };
    nvmlComputeInstanceGetInfo_v2(instance: Handle, info: Option<&mut nvmlComputeInstanceInfo_t>) = |call| {
        let (device, id, compute) = parts(instance);
        let of = GpuInstance::look(call, instance)?;
        let one = of.compute.iter().find(|one| one.id + 1 == compute).ok_or(NOT_FOUND)?;
        put(info, nvmlComputeInstanceInfo_t {
            device: device as nvmlDevice_t,
            gpuInstance: handle(device, id, 0) as nvmlGpuInstance_t,
            id: one.id,
            profileId: one.profile,
            placement: nvmlComputeInstancePlacement_t { start: one.start, size: one.size },
        })
    };
    nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        instance: Handle,
        profile: c_uint,
        placement: Option<&nvmlComputeInstancePlacement_t>,
        compute: Option<&mut Handle>,
    ) = |call| {
        let at = placement.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let found = by_id(&GpuInstance::look(call, instance)?.profiles()?, profile)?;
        let (device, id, _) = parts(instance);
        let made = change(call, device, |set| {
            let of = set.gpu_instances.iter_mut().find(|one| one.id == id).ok_or(NOT_FOUND)?;
            make(&mut of.compute, &found, at.start, at.size)
        })?;
        put(compute, handle(device, id, made + 1))
    };
    nvmlComputeInstanceDestroy(instance: Handle) = |call| {
        let (device, id, compute) = parts(instance);
        change(call, device, |set| {
            let of = set.gpu_instances.iter_mut().find(|one| one.id == id).ok_or(NOT_FOUND)?;
            let at = of.compute.iter().position(|one| one.id + 1 == compute).ok_or(NOT_FOUND)?;
            of.compute.remove(at);
            Ok(())
        })
    };
}

const NOT_FOUND: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_FOUND;

/// Handles of instances: the GPU's handle, the GPU instance, the compute instance and one more.
fn handle(device: Handle, instance: u32, compute: u32) -> Handle {
    1 << 30 | device << 16 | (instance as usize) << 8 | compute as usize
}

fn parts(handle: Handle) -> (Handle, u32, u32) {
    (handle >> 16 & 0xff, (handle >> 8 & 0xff) as u32, (handle & 0xff) as u32)
}

struct GpuInstance;

impl GpuInstance {
    /// The GPU instance of this handle, or the one that its compute instance is in.
    fn look(call: &Call<'_>, instance: Handle) -> Outcome<Instance> {
        let (device, id, _) = parts(instance);
        look(call, device, |set| set.gpu_instances.iter().find(|one| one.id == id).cloned())?.ok_or(NOT_FOUND)
    }
}

impl Instance {
    /// The profiles of compute instances in this GPU instance.
    fn profiles(&self) -> Outcome<Vec<Profile>> {
        Ok(compute_instances(by_id(GPU_INSTANCES, self.profile)?.slices))
    }
}

fn look<T>(call: &Call<'_>, device: Handle, of: impl FnOnce(&Settings) -> T) -> Outcome<T> {
    let (_, gpu) = call.gpu(device)?;
    if !gpu.mig {
        return Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    }
    call.settings(gpu, |set| Ok(of(set)))
}

fn change<T>(call: &Call<'_>, device: Handle, act: impl FnOnce(&mut Settings) -> Outcome<T>) -> Outcome<T> {
    let (_, gpu) = call.gpu(device)?;
    call.administrator()?;
    if !gpu.mig {
        return Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    }
    call.settings(gpu, act)
}

fn enabled(mig: bool) -> Outcome {
    if mig { Ok(()) } else { Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED) }
}

fn by_number(profiles: &[Profile], number: u32, count: u32) -> Outcome<Profile> {
    if number >= count {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    let found = profiles.iter().find(|profile| profile.number == number);
    found.copied().ok_or(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)
}

fn by_id(profiles: &[Profile], id: u32) -> Outcome<Profile> {
    let found = profiles.iter().find(|profile| profile.id == id);
    found.copied().ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)
}

fn ids(instances: &[Instance], profile: u32) -> Vec<u32> {
    instances.iter().filter(|one| one.profile == profile).map(|one| one.id).collect()
}

/// Puts an instance of `profile` where it is wanted, if that is free; returns its number.
fn make(instances: &mut Vec<Instance>, profile: &Profile, start: u32, size: u32) -> Outcome<u32> {
    if !profile.starts.contains(&start) || size != profile.size {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    if instances.iter().any(|one| one.start < start + size && start < one.start + one.size) {
        return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES);
    }
    let mut id = 0;
    while instances.iter().any(|one| one.id == id) {
        id += 1;
    }
    instances.push(Instance { id, profile: profile.id, start, size, compute: Vec::new() });
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_needs_a_free_place_that_its_profile_may_have() {
        let profile = by_id(GPU_INSTANCES, 9).expect("is there");
        let mut all = Vec::new();
        assert_eq!(make(&mut all, &profile, 4, 4), Ok(0));
        assert_eq!(make(&mut all, &profile, 2, 4), Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT));
        assert_eq!(make(&mut all, &profile, 4, 4), Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES));
        assert_eq!(make(&mut all, &profile, 0, 4), Ok(1));
    }

    #[test]
    fn a_handle_is_all_its_parts() {
        assert_eq!(parts(handle(8, 13, 7)), (8, 13, 7));
    }
}
