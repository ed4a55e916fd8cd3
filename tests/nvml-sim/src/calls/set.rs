// SPDX-License-Identifier: MIT
//! Settings: each is read by everyone, and set by an administrator.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use super::calls;
use crate::place::{Outcome, feature, put};
use crate::session::{Call, Handle};
use crate::settings::Settings;

calls! {
    nvmlDeviceGetPersistenceMode(device: Handle, mode: Option<&mut nvmlEnableState_t>) =
        |call| put(mode, get(call, device, |set| feature(set.persistence))?);
    nvmlDeviceSetPersistenceMode(device: Handle, mode: nvmlEnableState_t) =
        |call| set(call, device, |set| set.persistence = mode != 0);

    nvmlDeviceGetComputeMode(device: Handle, mode: Option<&mut nvmlComputeMode_t>) =
        |call| put(mode, get(call, device, |set| set.compute_mode)?);
    nvmlDeviceSetComputeMode(device: Handle, mode: nvmlComputeMode_t) = |call| {
        if mode >= nvmlComputeMode_enum_NVML_COMPUTEMODE_COUNT {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        set(call, device, |set| set.compute_mode = mode)
    };

    nvmlDeviceGetAccountingMode(device: Handle, mode: Option<&mut nvmlEnableState_t>) =
        |call| put(mode, get(call, device, |set| feature(set.accounting))?);
    nvmlDeviceSetAccountingMode(device: Handle, mode: nvmlEnableState_t) =
        |call| set(call, device, |set| set.accounting = mode != 0);

    nvmlDeviceGetAPIRestriction(
        device: Handle,
        api: nvmlRestrictedAPI_t,
        restricted: Option<&mut nvmlEnableState_t>,
    ) = |call| {
        let clocks = clocks_api(api)?;
        let now = |set: &Settings| if clocks { !set.everyone_sets_clocks } else { set.root_sets_auto_boost };
        put(restricted, feature(get(call, device, now)?))
    };
    nvmlDeviceSetAPIRestriction(device: Handle, api: nvmlRestrictedAPI_t, restricted: nvmlEnableState_t) =
        |call| {
            let clocks = clocks_api(api)?;
            set(call, device, |set| match clocks {
                true => set.everyone_sets_clocks = restricted == 0,
                false => set.root_sets_auto_boost = restricted != 0,
            })
        };

    nvmlDeviceGetPowerManagementDefaultLimit(device: Handle, limit: Option<&mut c_uint>) =
        |call| put(limit, call.gpu(device)?.1.power_default);
    nvmlDeviceGetPowerManagementLimitConstraints(
        device: Handle,
        lowest: Option<&mut c_uint>,
        highest: Option<&mut c_uint>,
    ) = |call| {
        let range = call.gpu(device)?.1.power_range;
        put(lowest, range.0)?;
        put(highest, range.1)
    };
    nvmlDeviceGetPowerManagementLimit(device: Handle, limit: Option<&mut c_uint>) = |call| {
        let default = call.gpu(device)?.1.power_default;
        put(limit, get(call, device, |set| set.power_limit)?.unwrap_or(default))
    };
    nvmlDeviceSetPowerManagementLimit(device: Handle, limit: c_uint) = |call| {
        let (lowest, highest) = call.gpu(device)?.1.power_range;
        if !(lowest..=highest).contains(&limit) {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        set(call, device, |set| set.power_limit = Some(limit))
    };

    nvmlDeviceGetDefaultApplicationsClock(
        device: Handle,
        kind: nvmlClockType_t,
        mhz: Option<&mut c_uint>,
    ) = |call| put(mhz, one_of(call.gpu(device)?.1.clocks_default, kind)?);
    nvmlDeviceGetApplicationsClock(device: Handle, kind: nvmlClockType_t, mhz: Option<&mut c_uint>) =
        |call| {
            let default = call.gpu(device)?.1.clocks_default;
            put(mhz, one_of(get(call, device, |set| set.application_clocks)?.unwrap_or(default), kind)?)
        };
    nvmlDeviceSetApplicationsClocks(device: Handle, memory: c_uint, graphics: c_uint) =
        |call| set(call, device, |set| set.application_clocks = Some((memory, graphics)));

    nvmlDeviceGetClockOffsets(device: Handle, info: Option<&mut nvmlClockOffset_t>) = |call| {
        let info = info.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let key = format!("{}/{}", info.type_, info.pstate);
        info.clockOffsetMHz = get(call, device, |set| set.clock_offsets.get(&key).copied())?.unwrap_or(0);
        (info.minClockOffsetMHz, info.maxClockOffsetMHz) = (-500, 500);
        Ok(())
    };
    nvmlDeviceSetClockOffsets(device: Handle, info: Option<&mut nvmlClockOffset_t>) = |call| {
        let info = info.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let key = format!("{}/{}", info.type_, info.pstate);
        set(call, device, |set| {
            set.clock_offsets.insert(key, info.clockOffsetMHz);
        })
    };

    nvmlDeviceSetGpuLockedClocks(device: Handle, lowest: c_uint, highest: c_uint) =
        |call| set(call, device, |set| set.gpu_locked_clocks = Some((lowest, highest)));
    nvmlDeviceSetMemoryLockedClocks(device: Handle, lowest: c_uint, highest: c_uint) =
        |call| set(call, device, |set| set.memory_locked_clocks = Some((lowest, highest)));
}

fn get<T>(call: &Call<'_>, device: Handle, of: impl FnOnce(&Settings) -> T) -> Outcome<T> {
    let (_, gpu) = call.gpu(device)?;
    call.settings(gpu, |set| Ok(of(set)))
}

fn set(call: &Call<'_>, device: Handle, change: impl FnOnce(&mut Settings)) -> Outcome {
    let (_, gpu) = call.gpu(device)?;
    call.administrator()?;
    call.settings(gpu, |set| {
        change(set);
        Ok(())
    })
}

/// Whether `api` is that of the applications clocks; else it is that of auto boost.
fn clocks_api(api: nvmlRestrictedAPI_t) -> Outcome<bool> {
    match api {
        nvmlRestrictedAPI_enum_NVML_RESTRICTED_API_SET_APPLICATION_CLOCKS => Ok(true),
        nvmlRestrictedAPI_enum_NVML_RESTRICTED_API_SET_AUTO_BOOSTED_CLOCKS => Ok(false),
        _ => Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT),
    }
}

/// Of memory and graphics clock the one of this type.
fn one_of((memory, graphics): (u32, u32), kind: nvmlClockType_t) -> Outcome<u32> {
    match kind {
        nvmlClockType_enum_NVML_CLOCK_MEM => Ok(memory),
        nvmlClockType_enum_NVML_CLOCK_GRAPHICS | nvmlClockType_enum_NVML_CLOCK_SM => Ok(graphics),
        _ => Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED),
    }
}
