// SPDX-License-Identifier: MIT
//! How GPUs are linked by NVLink: some can only be reset together.

#![allow(unsafe_code)]

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::*;
use serde::{Deserialize, Serialize};

use crate::nvml::start;
use crate::read::as_kernel;

/// What may be at the other end of a link that is no GPU.
const SWITCH: u32 = nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH;
const NPU: u32 = nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_IBMNPU;

/// What a GPU is linked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// The GPU's PCI address, as the kernel writes it.
    pub pci: String,
    /// `NVML_DEVICE_ARCH_…`; none where NVML does not tell.
    pub architecture: Option<u32>,
    /// The PCI addresses of the GPUs at the other ends of its active links.
    pub peers: Vec<String>,
    /// Whether an active link leads to an NVSwitch, and so to every GPU there.
    pub switched: bool,
}

impl Links {
    /// Whether it is from before Ampere: such a GPU is reset only together with all it is linked to.
    pub fn is_before_ampere(&self) -> bool {
        self.architecture.is_some_and(|number| number < NVML_DEVICE_ARCH_AMPERE)
    }

    /// Whether it is Hopper or later: such a GPU needs no Fabric Manager to be reset by itself.
    pub fn is_hopper_or_later(&self) -> bool {
        self.architecture
            .is_some_and(|number| number >= NVML_DEVICE_ARCH_HOPPER && number != NVML_DEVICE_ARCH_UNKNOWN)
    }
}

/// The links of every GPU that NVML shows.
///
/// # Errors
/// NVML does not start, or fails at a GPU, in its words.
pub fn links() -> anyhow::Result<Vec<Links>> {
    let nvml = start(None).0?;
    Ok((0..nvml.device_count()?).map(|index| of(&nvml, index)).collect::<Result<_, _>>()?)
}

fn of(nvml: &Nvml, index: u32) -> Result<Links, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let pci = device.pci_info()?.bus_id;
    let mut links = Links {
        pci: as_kernel(&pci).unwrap_or(pci),
        architecture: has(architecture(&device))?,
        peers: Vec::new(),
        switched: false,
    };
    for number in 0..NVML_NVLINK_MAX_LINKS {
        let link = device.link_wrapper_for(number);
        // NVML says so of every number from the first that the GPU does not have.
        let Some(active) = has(link.is_active())? else { break };
        if !active {
            continue;
        }
        match has(remote_kind(&device, number))? {
            Some(SWITCH) => links.switched = true,
            Some(NPU) => {}
            // A library from before this call knew of links between GPUs only.
            _ => {
                let remote = link.remote_pci_info()?.bus_id;
                links.peers.push(as_kernel(&remote).unwrap_or(remote));
            }
        }
    }
    links.peers.sort();
    links.peers.dedup();
    Ok(links)
}

/// None for what the GPU or the library does not have.
fn has<T>(said: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match said {
        Ok(value) => Ok(Some(value)),
        Err(
            NvmlError::NotSupported
            | NvmlError::InvalidArg
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

fn architecture(device: &Device<'_>) -> Result<u32, NvmlError> {
    let mut number = 0;
    // SAFETY: the handle is the device's, and the place outlives the call.
    unsafe {
        let call = nvml_sym(device.nvml().lib().nvmlDeviceGetArchitecture.as_ref())?;
        nvml_try(call(device.handle(), &mut number))?;
    }
    Ok(number)
}

fn remote_kind(device: &Device<'_>, link: u32) -> Result<u32, NvmlError> {
    let mut kind = 0;
    // SAFETY: the handle is the device's, and the place outlives the call.
    unsafe {
        let call = nvml_sym(device.nvml().lib().nvmlDeviceGetNvLinkRemoteDeviceType.as_ref())?;
        nvml_try(call(device.handle(), link, &mut kind))?;
    }
    Ok(kind)
}
