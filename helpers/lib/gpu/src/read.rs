// SPDX-License-Identifier: MIT
//! Reading a GPU: how it is, and what is set on it.

#![allow(unsafe_code)]

use nvml_wrapper::enum_wrappers::device::{Api, Clock};
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::*;

use ledger::{Fabric, Gpu, Health, Mode, RemappedRows, Setting};

use crate::mig;
use crate::state::{Reading, Trouble};

/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`, from 565 on.
const RECOVERY_ACTION: u32 = 230;

/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH` and `NVML_ERROR_DEPRECATED`, of which nvml-wrapper does not
/// know: the library does not have the call as it was made.
const NOT_THIS_CALL: [u32; 2] = [25, 26];

/// Performance states are P0 to P15 (`nvmlPstates_t`).
const PSTATES: u32 = 16;

type Result<T> = std::result::Result<T, NvmlError>;

/// What is known of a GPU that turned out to be out of use.
#[derive(Default)]
struct Identity {
    pci: Option<String>,
    uuid: Option<String>,
}

/// What could not be read, and why, in sentences.
#[derive(Default)]
pub(crate) struct Unread(Vec<String>);

impl Unread {
    /// What a call says of `what`. None where the GPU, the driver or the library does not have it, or
    /// an error that is none of the whole GPU came; that is noted.
    pub(crate) fn ask<T>(&mut self, what: &str, said: Result<T>) -> std::result::Result<Option<T>, Trouble> {
        match said {
            Ok(value) => Ok(Some(value)),
            Err(NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_)) => {
                Ok(None)
            }
            Err(NvmlError::UnexpectedVariant(number)) if NOT_THIS_CALL.contains(&number) => Ok(None),
            Err(NvmlError::GpuLost) => Err(Trouble::Lost),
            Err(NvmlError::ResetRequired) => Err(Trouble::ResetRequired),
            Err(error) => {
                self.0.push(format!("{what}: {error}"));
                Ok(None)
            }
        }
    }
}

/// Whether confidential computing is on; none where NVML does not tell.
pub(crate) fn confidential_computing(nvml: &Nvml) -> Option<bool> {
    // SAFETY: the structure is NVML's own, and outlives the call.
    let said = unsafe {
        let mut state: nvmlConfComputeSystemState_t = std::mem::zeroed();
        nvml_sym(nvml.lib().nvmlSystemGetConfComputeState.as_ref())
            .and_then(|call| nvml_try(call(&mut state)))
            .map(|()| state.ccFeature == NVML_CC_SYSTEM_FEATURE_ENABLED)
    };
    said.ok()
}

/// All that NVML shows of the GPU at `index`.
pub(crate) fn gpu(nvml: &Nvml, index: u32) -> Reading {
    let mut identity = Identity::default();
    let trouble = match nvml.device_by_index(index) {
        Ok(device) => match whole(&device, index, &mut identity) {
            Ok(gpu) => return Reading::Ok(Box::new(gpu)),
            Err(trouble) => trouble,
        },
        Err(error) => trouble(error),
    };
    Reading::Trouble { index, pci: identity.pci, uuid: identity.uuid, trouble }
}

fn trouble(error: NvmlError) -> Trouble {
    match error {
        NvmlError::GpuLost => Trouble::Lost,
        NvmlError::ResetRequired => Trouble::ResetRequired,
        error => Trouble::Other(error.to_string()),
    }
}

fn whole(device: &Device<'_>, index: u32, identity: &mut Identity) -> std::result::Result<Gpu, Trouble> {
    let pci = device.pci_info().map_err(trouble)?;
    let pci = as_kernel(&pci.bus_id)
        .ok_or_else(|| Trouble::Other(format!("NVML's PCI address {:?} is none", pci.bus_id)))?;
    identity.pci = Some(pci.clone());
    let uuid = device.uuid().map_err(trouble)?;
    identity.uuid = Some(uuid.clone());
    let mut unread = Unread::default();
    let name = unread.ask("name", device.name())?.unwrap_or_default();
    let health = health(device, &mut unread)?;
    let settings = settings(device, &mut unread)?;
    Ok(Gpu { index, pci, uuid, name, health, settings, unread: unread.0 })
}

/// NVML's `00000000:3B:00.0` as the kernel writes it: `0000:3b:00.0`.
pub(crate) fn as_kernel(bus_id: &str) -> Option<String> {
    let (domain, rest) = bus_id.split_once(':')?;
    Some(format!("{:04x}:{}", u32::from_str_radix(domain, 16).ok()?, rest.to_ascii_lowercase()))
}

fn health(device: &Device<'_>, unread: &mut Unread) -> std::result::Result<Health, Trouble> {
    let ecc = unread.ask("ECC mode", device.is_ecc_enabled())?;
    let mig = unread.ask("MIG mode", device.mig_mode())?;
    Ok(Health {
        recovery_action: unread.ask("recovery action", recovery_action(device))?,
        remapped_rows: unread.ask("remapped rows", remapped_rows(device))?,
        retired_pages_pending: unread.ask("retired pages", device.are_pages_pending_retired())?,
        ecc: ecc.map(|ecc| Mode { current: ecc.currently_enabled, pending: ecc.pending_enabled }),
        mig: mig.map(|mig| Mode {
            current: mig.current == NVML_DEVICE_MIG_ENABLE,
            pending: mig.pending == NVML_DEVICE_MIG_ENABLE,
        }),
        fabric: unread.ask("fabric", fabric(device))?.flatten(),
    })
}

fn recovery_action(device: &Device<'_>) -> Result<u32> {
    // SAFETY: the handle is the device's, and the structure NVML's own, which outlives the call.
    let field = unsafe {
        let mut field: nvmlFieldValue_t = std::mem::zeroed();
        field.fieldId = RECOVERY_ACTION;
        let call = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
        nvml_try(call(device.handle(), 1, &mut field))?;
        field
    };
    // A driver from before the field.
    if field.nvmlReturn == nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT {
        return Err(NvmlError::NotSupported);
    }
    nvml_try(field.nvmlReturn)?;
    if field.valueType != nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT {
        return Err(NvmlError::UnexpectedVariant(field.valueType));
    }
    // SAFETY: the type says which member was written.
    Ok(unsafe { field.value.uiVal })
}

fn remapped_rows(device: &Device<'_>) -> Result<RemappedRows> {
    let (mut correctable, mut uncorrectable, mut pending, mut failure) = (0, 0, 0, 0);
    // SAFETY: the handle is the device's, and the places outlive the call.
    unsafe {
        let call = nvml_sym(device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
        nvml_try(call(device.handle(), &mut correctable, &mut uncorrectable, &mut pending, &mut failure))?;
    }
    Ok(RemappedRows { correctable, uncorrectable, pending: pending != 0, failure: failure != 0 })
}

/// None where the GPU is in no fabric.
fn fabric(device: &Device<'_>) -> Result<Option<Fabric>> {
    // SAFETY: the handle is the device's, and the structure NVML's own, which outlives the call.
    let info = unsafe {
        let mut info: nvmlGpuFabricInfo_t = std::mem::zeroed();
        let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfo.as_ref())?;
        nvml_try(call(device.handle(), &mut info))?;
        info
    };
    let is_in_one = u32::from(info.state) != NVML_GPU_FABRIC_STATE_NOT_SUPPORTED;
    Ok(is_in_one.then_some(Fabric { state: info.state, status: info.status }))
}

/// What is set and is not at its default, in the order in which it is to be set again: persistence
/// first, since a GPU that nothing uses loses the rest; then MIG, which ends what runs.
pub(crate) fn settings(
    device: &Device<'_>,
    unread: &mut Unread,
) -> std::result::Result<Vec<Setting>, Trouble> {
    let mut found = Vec::new();
    if unread.ask("persistence mode", device.is_in_persistent_mode())? == Some(true) {
        found.push(Setting::Persistence);
    }
    let mig = unread.ask("MIG mode", device.mig_mode())?;
    if mig.is_some_and(|mig| mig.current == NVML_DEVICE_MIG_ENABLE) {
        found.push(Setting::Mig);
        let instances = unread.ask("GPU instances", mig::instances(device))?.unwrap_or_default();
        found.extend(instances.into_iter().map(|(_, instance)| Setting::GpuInstance(instance)));
    }
    if let Some(mode) = unread.ask("compute mode", compute_mode(device))?
        && mode != nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT
    {
        found.push(Setting::ComputeMode { mode });
    }
    if unread.ask("accounting mode", device.is_accounting_enabled())? == Some(true) {
        found.push(Setting::Accounting);
    }
    // The defaults: applications clocks are root's, auto boost is everyone's (nvml.h).
    for (api, number, default) in [
        (Api::ApplicationClocks, nvmlRestrictedAPI_enum_NVML_RESTRICTED_API_SET_APPLICATION_CLOCKS, true),
        (Api::AutoBoostedClocks, nvmlRestrictedAPI_enum_NVML_RESTRICTED_API_SET_AUTO_BOOSTED_CLOCKS, false),
    ] {
        let restricted = unread.ask("API restriction", device.is_api_restricted(api))?;
        if let Some(restricted) = restricted.filter(|restricted| *restricted != default) {
            found.push(Setting::ApiRestriction { api: number, restricted });
        }
    }
    let limit = unread.ask("power limit", device.power_management_limit())?;
    let default = unread.ask("default power limit", device.power_management_limit_default())?;
    if let Some(milliwatts) = limit.filter(|_| limit != default) {
        found.push(Setting::PowerLimit { milliwatts });
    }
    found.extend(application_clocks(device, unread)?);
    for clock in [nvmlClockType_enum_NVML_CLOCK_GRAPHICS, nvmlClockType_enum_NVML_CLOCK_MEM] {
        for pstate in 0..PSTATES {
            let offset = match clock_offset(device, clock, pstate) {
                // A state that this GPU does not have.
                Err(NvmlError::InvalidArg) => continue,
                said => unread.ask("clock offset", said)?,
            };
            let Some(mhz) = offset else { break };
            if mhz != 0 {
                found.push(Setting::ClockOffset { clock, pstate, mhz });
            }
        }
    }
    Ok(found)
}

fn compute_mode(device: &Device<'_>) -> Result<u32> {
    let mut mode = 0;
    // SAFETY: the handle is the device's, and the place outlives the call.
    unsafe {
        let call = nvml_sym(device.nvml().lib().nvmlDeviceGetComputeMode.as_ref())?;
        nvml_try(call(device.handle(), &mut mode))?;
    }
    Ok(mode)
}

fn application_clocks(
    device: &Device<'_>,
    unread: &mut Unread,
) -> std::result::Result<Option<Setting>, Trouble> {
    let mut both = |of: &dyn Fn(Clock) -> Result<u32>| {
        let memory = unread.ask("applications clock", of(Clock::Memory))?;
        let graphics = unread.ask("applications clock", of(Clock::Graphics))?;
        Ok(memory.zip(graphics))
    };
    let now = both(&|clock| device.applications_clock(clock))?;
    let default = both(&|clock| device.default_applications_clock(clock))?;
    let set = now.filter(|_| now != default);
    Ok(set.map(|(memory, graphics)| Setting::ApplicationClocks { memory, graphics }))
}

fn clock_offset(device: &Device<'_>, clock: u32, pstate: u32) -> Result<i32> {
    let mut info = offset(clock, pstate, 0);
    // SAFETY: the handle is the device's, and the structure NVML's own, which outlives the call.
    unsafe {
        let call = nvml_sym(device.nvml().lib().nvmlDeviceGetClockOffsets.as_ref())?;
        nvml_try(call(device.handle(), &mut info))?;
    }
    Ok(info.clockOffsetMHz)
}

/// The structure of NVML's calls on clock offsets.
pub(crate) fn offset(clock: u32, pstate: u32, mhz: i32) -> nvmlClockOffset_t {
    nvmlClockOffset_t {
        // NVML_STRUCT_VERSION(ClockOffset, 1), nvml.h.
        version: (size_of::<nvmlClockOffset_t>() | 1 << 24) as u32,
        type_: clock,
        pstate,
        clockOffsetMHz: mhz,
        minClockOffsetMHz: 0,
        maxClockOffsetMHz: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_kernels() {
        assert_eq!(as_kernel("00000000:3B:00.0").as_deref(), Some("0000:3b:00.0"));
        assert_eq!(as_kernel("00010000:81:00.0").as_deref(), Some("10000:81:00.0"));
        assert_eq!(as_kernel("x"), None);
    }

    #[test]
    fn what_is_missing_is_no_error_and_what_is_lost_ends_the_reading() {
        let mut unread = Unread::default();
        assert_eq!(unread.ask::<u32>("a", Err(NvmlError::FunctionNotFound)), Ok(None));
        assert_eq!(unread.ask::<u32>("a", Err(NvmlError::UnexpectedVariant(26))), Ok(None));
        assert!(unread.0.is_empty());
        assert_eq!(unread.ask::<u32>("a", Err(NvmlError::Unknown)), Ok(None));
        assert_eq!(unread.0.len(), 1);
        assert_eq!(unread.ask::<u32>("a", Err(NvmlError::GpuLost)), Err(Trouble::Lost));
    }
}
