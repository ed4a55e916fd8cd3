// SPDX-License-Identifier: MIT
//! How NVML and every GPU is: what the helper answers.

use std::fmt;
use std::path::PathBuf;

use ledger::Gpu;
use serde::{Deserialize, Serialize};

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
    /// It was not asked: no GPU was started since the driver was loaded, so nothing is set on any.
    Asleep,
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
}

/// How NVML and every GPU is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The library that the linker chooses.
    pub library: Library,
    /// The library that was asked instead, since the linker's is not of the loaded driver's version.
    pub instead: Option<PathBuf>,
    /// How NVML is.
    pub nvml: Answer,
    /// Whether confidential computing is on; none where NVML does not tell.
    pub confidential_computing: Option<bool>,
    /// The GPUs, in the order of NVML's indices.
    pub gpus: Vec<Reading>,
}

/// What NVML shows of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Reading {
    /// All that there is to know.
    Ok(Box<Gpu>),
    /// It cannot be used.
    Trouble {
        /// NVML's index.
        index: u32,
        /// The PCI address, if NVML still knew it.
        pci: Option<String>,
        /// The UUID, if NVML still knew it.
        uuid: Option<String>,
        /// Why.
        trouble: Trouble,
    },
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reading::Ok(gpu) => gpu.fmt(f),
            Reading::Trouble { index, pci: Some(pci), .. } => write!(f, "GPU {index} ({pci})"),
            Reading::Trouble { index, .. } => write!(f, "GPU {index}"),
        }
    }
}

/// Why a GPU cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// `NVML_ERROR_GPU_IS_LOST`: it fell off the bus, or is otherwise out of reach.
    Lost,
    /// `NVML_ERROR_RESET_REQUIRED`.
    ResetRequired,
    /// Another error, in NVML's words.
    Other(String),
}
