// SPDX-License-Identifier: MIT
//! The library as such.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::*;

use super::calls;
use crate::place::{put, put_text};
use crate::session;

/// See `nvmlInit_v2` in nvml.h.
// SAFETY: the name is NVML's, and in one process there is one NVML.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    session::start("nvmlInit_v2")
}

/// See `nvmlShutdown` in nvml.h.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    session::end()
}

/// See `nvmlErrorString` in nvml.h.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_error: nvmlReturn_t) -> *const c_char {
    c"an error of the simulation".as_ptr()
}

calls! {
    nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) = |call| {
        // SAFETY: the caller says how long its buffer is.
        unsafe { put_text(version, length, call.driver_version()) }
    };
    nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) = |_| {
        // SAFETY: the caller says how long its buffer is.
        unsafe { put_text(version, length, "simulation") }
    };
    nvmlSystemGetCudaDriverVersion_v2(version: Option<&mut c_int>) = |_| put(version, 12_000);
    nvmlDeviceGetCount_v2(count: Option<&mut c_uint>) = |call| put(count, call.present().len() as c_uint);
    nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: Option<&mut session::Handle>) = |call| {
        let present = call.present();
        let at = present.get(index as usize).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        call.gpu(at + 1)?;
        put(handle, at + 1)
    };
    nvmlSystemGetConfComputeState(state: Option<&mut nvmlConfComputeSystemState_t>) = |call| {
        let feature = match call.config().confidential_computing {
            true => NVML_CC_SYSTEM_FEATURE_ENABLED,
            false => NVML_CC_SYSTEM_FEATURE_DISABLED,
        };
        put(state, nvmlConfComputeSystemState_t { environment: 0, ccFeature: feature, devToolsMode: 0 })
    };
}
