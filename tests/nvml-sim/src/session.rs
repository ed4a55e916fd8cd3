// SPDX-License-Identifier: MIT
//! Between init and shutdown.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nvml_wrapper_sys::bindings::*;

use crate::config::{Config, Fault, Gpu};
use crate::driver::{Driver, bound, is_administrator, own_version};
use crate::place::Outcome;
use crate::settings::{self, Settings};

/// What is open, and how many times it was started.
static OPEN: Mutex<Option<(Session, u32)>> = Mutex::new(None);

/// An initialised library.
#[derive(Debug)]
pub struct Session {
    config: Config,
    driver: Driver,
}

/// One call of a caller.
#[derive(Debug)]
pub struct Call<'a> {
    name: &'a str,
    session: &'a Session,
}

/// A handle is the GPU's index, and one more: none is null.
pub type Handle = usize;

/// Starts the library, as `name` does.
pub fn start(name: &str) -> nvmlReturn_t {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, times)) = open.as_mut() {
        *times += 1;
        return nvmlReturn_enum_NVML_SUCCESS;
    }
    match Session::new(name) {
        Ok(session) => {
            *open = Some((session, 1));
            nvmlReturn_enum_NVML_SUCCESS
        }
        Err(error) => error,
    }
}

/// Ends the library when it was ended as often as it was started.
pub fn end() -> nvmlReturn_t {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((_, times)) = open.as_mut() else { return nvmlReturn_enum_NVML_ERROR_UNINITIALIZED };
    *times -= 1;
    if *times == 0 {
        *open = None;
    }
    nvmlReturn_enum_NVML_SUCCESS
}

/// Does `act` for the call `name`.
pub fn call(name: &str, act: impl FnOnce(&Call<'_>) -> Outcome) -> nvmlReturn_t {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((session, _)) = open.as_ref() else { return nvmlReturn_enum_NVML_ERROR_UNINITIALIZED };
    let call = Call { name, session };
    match call.go_wrong(None).and_then(|()| act(&call)) {
        Ok(()) => nvmlReturn_enum_NVML_SUCCESS,
        Err(error) => error,
    }
}

impl Session {
    fn new(name: &str) -> Outcome<Self> {
        let config = Config::load().map_err(|error| {
            eprintln!("nvml-sim: {error:#}");
            nvmlReturn_enum_NVML_ERROR_UNKNOWN
        })?;
        let driver = Driver::open().ok_or(nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED)?;
        let session = Self { config, driver };
        Call { name, session: &session }.go_wrong(None)?;
        if own_version().is_some_and(|version| version != session.driver.version) {
            return Err(nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH);
        }
        Ok(session)
    }
}

impl Call<'_> {
    /// The description.
    pub fn config(&self) -> &Config {
        &self.session.config
    }

    /// The version of the driver.
    pub fn driver_version(&self) -> &str {
        self.config().driver_version.as_ref().unwrap_or(&self.session.driver.version)
    }

    /// The faults that hit GPU `index` now.
    fn faults(&self, index: Option<usize>) -> impl Iterator<Item = &Fault> {
        self.config().fault.iter().filter(move |fault| {
            let here = fault.gpu.is_none_or(|gpu| index == Some(gpu as usize));
            here && fault.driver.as_ref().is_none_or(|driver| *driver == self.session.driver.version)
        })
    }

    /// Fails, or never returns, where a fault says so. One without calls hits every call on a GPU.
    fn go_wrong(&self, index: Option<usize>) -> Outcome {
        for fault in self.faults(index) {
            let hits = if fault.calls.is_empty() {
                index.is_some()
            } else {
                fault.calls.iter().any(|call| call == self.name)
            };
            if hits && fault.hang {
                loop {
                    std::thread::park();
                }
            }
            if let Some(error) = fault.error.filter(|_| hits) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// The indices of the GPUs that are there.
    pub fn present(&self) -> Vec<usize> {
        (0..self.config().gpu.len()).filter(|index| !self.faults(Some(*index)).any(|f| f.gone)).collect()
    }

    /// The GPU of `handle`, and its index in the description.
    ///
    /// # Errors
    /// There is none, or a fault hits it.
    pub fn gpu(&self, handle: Handle) -> Outcome<(usize, &Gpu)> {
        let index = handle.checked_sub(1).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let gpu = self.config().gpu.get(index).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        self.go_wrong(Some(index))?;
        Ok((index, gpu))
    }

    /// The PCI address of the GPU at `index`.
    ///
    /// # Errors
    /// The description gives none, and the machine has no such GPU.
    pub fn pci(&self, index: usize) -> Outcome<String> {
        let told = self.config().gpu.get(index).and_then(|gpu| gpu.pci.clone());
        told.or_else(|| bound().get(index).cloned()).ok_or(nvmlReturn_enum_NVML_ERROR_UNKNOWN)
    }

    /// Field 230 of the GPU at `index`, where the driver has it.
    pub fn recovery_action(&self, index: usize) -> Option<u32> {
        let fault = self.faults(Some(index)).find_map(|fault| fault.recovery_action);
        fault.or_else(|| self.config().gpu.get(index)?.recovery_action)
    }

    /// Whether a remapping of rows of the GPU at `index` waits for a reset.
    pub fn remapping_pending(&self, index: usize) -> bool {
        self.faults(Some(index)).any(|fault| fault.remapping_pending)
    }

    /// What is set on `gpu`, after `act` has seen and perhaps changed it.
    ///
    /// # Errors
    /// `act`'s own; or the settings cannot be stored.
    pub fn settings<T>(&self, gpu: &Gpu, act: impl FnOnce(&mut Settings) -> Outcome<T>) -> Outcome<T> {
        let uuid = gpu.uuid.clone().unwrap_or_default();
        let generation = self.session.driver.generation;
        settings::with(Path::new(settings::FILE), generation, self.config(), |stored| {
            act(stored.gpus.entry(uuid).or_default())
        })
        .map_err(|error| {
            eprintln!("nvml-sim: {error:#}");
            nvmlReturn_enum_NVML_ERROR_UNKNOWN
        })?
    }

    /// Only an administrator gets further.
    ///
    /// # Errors
    /// This process is none.
    pub fn administrator(&self) -> Outcome {
        if is_administrator() { Ok(()) } else { Err(nvmlReturn_enum_NVML_ERROR_NO_PERMISSION) }
    }
}
