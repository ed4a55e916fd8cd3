//! The questions to NVML, asked in this very process: only for one that ends right after.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

/// The name that programs link against; the file behind it carries the version.
const SONAME: &str = "libnvidia-ml.so.1";

/// The library that the linker chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Library {
    /// There is one.
    Found {
        /// The file.
        path: PathBuf,
        /// The version in its name, which is the driver's.
        version: Option<String>,
    },
    /// The linker finds none: NVIDIA's userland is not installed.
    Absent {
        /// What the linker says.
        reason: String,
    },
}

/// What NVML says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Answer {
    /// It works.
    Ok {
        /// The loaded driver's version.
        driver_version: String,
        /// How many GPUs it can serve.
        devices: u32,
    },
    /// `NVML_ERROR_LIB_RM_VERSION_MISMATCH`: the library is of another version than the driver.
    Mismatch,
    /// `NVML_ERROR_DRIVER_NOT_LOADED`.
    NotLoaded,
    /// There is no library.
    NoLibrary {
        /// What the linker says.
        reason: String,
    },
    /// Any other error.
    Failed {
        /// NVML's name for it.
        reason: String,
    },
    /// It did not answer in time.
    Hung {
        /// How long it was given, in seconds.
        seconds: u64,
    },
}

/// Which library the linker chooses. Talks to no driver.
///
/// # Errors
/// `/proc/self/maps` cannot be read.
pub fn library() -> Result<Library> {
    // SAFETY: NVIDIA's library has constructors that touch nothing outside of it.
    let opened = match unsafe { libloading::Library::new(SONAME) } {
        Ok(opened) => opened,
        Err(error) => return Ok(Library::Absent { reason: error.to_string() }),
    };
    let maps = fs::read_to_string("/proc/self/maps").context("read /proc/self/maps")?;
    drop(opened);
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
    Ok(Library::Found { path, version })
}

/// Starts NVML, asks, and ends it.
pub fn ask() -> Answer {
    match Nvml::builder().lib_path(SONAME.as_ref()).init().and_then(|nvml| {
        Ok(Answer::Ok { driver_version: nvml.sys_driver_version()?, devices: nvml.device_count()? })
    }) {
        Ok(answer) => answer,
        Err(NvmlError::LibRmVersionMismatch) => Answer::Mismatch,
        Err(NvmlError::DriverNotLoaded) => Answer::NotLoaded,
        Err(NvmlError::LibloadingError(error)) => Answer::NoLibrary { reason: error.to_string() },
        Err(error) => Answer::Failed { reason: error.to_string() },
    }
}
