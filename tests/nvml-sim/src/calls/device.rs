// SPDX-License-Identifier: MIT
//! What is asked of a GPU.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::*;

use super::calls;
use crate::config::Gpu;
use crate::place::{Outcome, feature, fixed, put, put_all, put_text};
use crate::session::Handle;

/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`, from 565 on.
const RECOVERY_ACTION: c_uint = 230;

calls! {
    nvmlDeviceGetIndex(device: Handle, index: Option<&mut c_uint>) = |call| {
        let (at, _) = call.gpu(device)?;
        let place = call.present().iter().position(|other| *other == at);
        put(index, place.ok_or(nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST)? as c_uint)
    };
    nvmlDeviceGetUUID(device: Handle, uuid: *mut c_char, length: c_uint) = |call| {
        let (_, gpu) = call.gpu(device)?;
        // SAFETY: the caller says how long its buffer is.
        unsafe { put_text(uuid, length, gpu.uuid.as_deref().unwrap_or_default()) }
    };
    nvmlDeviceGetName(device: Handle, name: *mut c_char, length: c_uint) = |call| {
        call.gpu(device)?;
        // SAFETY: the caller says how long its buffer is.
        unsafe { put_text(name, length, "NVIDIA GPU (simulation)") }
    };
    nvmlDeviceGetPciInfo_v3(device: Handle, pci: Option<&mut nvmlPciInfo_t>) = |call| {
        let (index, _) = call.gpu(device)?;
        put(pci, pci_info(&call.pci(index)?)?)
    };
    nvmlDeviceGetFieldValues(device: Handle, count: c_int, values: *mut nvmlFieldValue_t) = |call| {
        let (index, _) = call.gpu(device)?;
        let count = usize::try_from(count).map_err(|_| nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        for at in 0..count {
            // SAFETY: the caller says how long its array is, and it begins within it.
            let value = unsafe { &mut *values.add(at) };
            match call.recovery_action(index).filter(|_| value.fieldId == RECOVERY_ACTION) {
                Some(action) => {
                    value.nvmlReturn = nvmlReturn_enum_NVML_SUCCESS;
                    value.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
                    value.value.uiVal = action;
                }
                None => value.nvmlReturn = nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
            }
        }
        Ok(())
    };
    nvmlDeviceGetRemappedRows(
        device: Handle,
        correctable: Option<&mut c_uint>,
        uncorrectable: Option<&mut c_uint>,
        pending: Option<&mut c_uint>,
        failure: Option<&mut c_uint>,
    ) = |call| {
        let (index, gpu) = call.gpu(device)?;
        let rows = gpu.remapped_rows.ok_or(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)?;
        put(correctable, rows.0)?;
        put(uncorrectable, rows.1)?;
        put(pending, (rows.2 || call.remapping_pending(index)).into())?;
        put(failure, rows.3.into())
    };
    nvmlDeviceGetRetiredPagesPendingStatus(device: Handle, pending: Option<&mut nvmlEnableState_t>) = |call| {
        let (_, gpu) = call.gpu(device)?;
        put(pending, feature(gpu.retired_pages_pending.ok_or(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)?))
    };
    nvmlDeviceGetEccMode(
        device: Handle,
        current: Option<&mut nvmlEnableState_t>,
        pending: Option<&mut nvmlEnableState_t>,
    ) = |call| {
        let (_, gpu) = call.gpu(device)?;
        let ecc = gpu.ecc.ok_or(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)?;
        put(current, feature(ecc.0))?;
        put(pending, feature(ecc.1))
    };
    nvmlDeviceGetArchitecture(device: Handle, architecture: Option<&mut nvmlDeviceArchitecture_t>) = |call| {
        let (_, gpu) = call.gpu(device)?;
        put(architecture, gpu.architecture)
    };
    nvmlDeviceGetNvLinkState(device: Handle, link: c_uint, state: Option<&mut nvmlEnableState_t>) = |call| {
        let (_, gpu) = call.gpu(device)?;
        link_of(gpu, link)?;
        put(state, feature(true))
    };
    nvmlDeviceGetNvLinkRemoteDeviceType(
        device: Handle,
        link: c_uint,
        kind: Option<&mut nvmlIntNvLinkDeviceType_t>,
    ) = |call| {
        let (_, gpu) = call.gpu(device)?;
        put(kind, match link_of(gpu, link)? {
            "switch" => nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH,
            _ => nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
        })
    };
    nvmlDeviceGetNvLinkRemotePciInfo_v2(
        device: Handle,
        link: c_uint,
        pci: Option<&mut nvmlPciInfo_t>,
    ) = |call| {
        let (_, gpu) = call.gpu(device)?;
        put(pci, pci_info(link_of(gpu, link)?)?)
    };
    nvmlDeviceGetGpuFabricInfo(device: Handle, info: Option<&mut nvmlGpuFabricInfo_t>) = |call| {
        let (_, gpu) = call.gpu(device)?;
        let (state, status) = gpu.fabric.ok_or(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)?;
        put(info, nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status, cliqueId: 0, state })
    };
    nvmlDeviceGetComputeRunningProcesses_v3(
        device: Handle,
        count: Option<&mut c_uint>,
        processes: *mut nvmlProcessInfo_t,
    ) = |call| nobody(call.gpu(device).map(drop), count, processes);
    nvmlDeviceGetGraphicsRunningProcesses_v3(
        device: Handle,
        count: Option<&mut c_uint>,
        processes: *mut nvmlProcessInfo_t,
    ) = |call| nobody(call.gpu(device).map(drop), count, processes);
    nvmlDeviceGetMPSComputeRunningProcesses_v3(
        device: Handle,
        count: Option<&mut c_uint>,
        processes: *mut nvmlProcessInfo_t,
    ) = |call| nobody(call.gpu(device).map(drop), count, processes);
}

fn nobody(found: Outcome, count: Option<&mut c_uint>, processes: *mut nvmlProcessInfo_t) -> Outcome {
    found?;
    // SAFETY: nothing is put into the array.
    unsafe { put_all(processes, 0, count, &[]) }
}

/// What is at the other end of a link. Of a number that the GPU does not have NVML says that it is no
/// valid argument.
fn link_of(gpu: &Gpu, link: c_uint) -> Outcome<&str> {
    let end = gpu.links.get(link as usize).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
    Ok(end)
}

/// `0000:01:00.0` in NVML's forms.
fn pci_info(address: &str) -> Outcome<nvmlPciInfo_t> {
    let numbers = || {
        let (domain, rest) = address.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let number = |text| u32::from_str_radix(text, 16).ok();
        Some((number(domain)?, number(bus)?, number(device)?, number(function)?))
    };
    let (domain, bus, device, function) = numbers().ok_or(nvmlReturn_enum_NVML_ERROR_UNKNOWN)?;
    Ok(nvmlPciInfo_t {
        busIdLegacy: fixed(&format!("{domain:04X}:{bus:02X}:{device:02X}.{function:X}")),
        domain,
        bus,
        device,
        pciDeviceId: 0x1eb8_10de,
        pciSubSystemId: 0,
        busId: fixed(&format!("{domain:08X}:{bus:02X}:{device:02X}.{function:X}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_two_forms() {
        let info = pci_info("0000:3b:00.0").expect("parses");
        assert_eq!(info.busId, fixed::<32>("00000000:3B:00.0"));
        assert_eq!(info.busIdLegacy, fixed::<16>("0000:3B:00.0"));
        assert!(pci_info("3b:00.0").is_err());
    }
}
