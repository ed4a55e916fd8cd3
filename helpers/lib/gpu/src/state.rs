//! How NVML and every GPU is: what the helper answers.

use std::fmt;
use std::path::PathBuf;

use ledger::Gpu;
use serde::{Deserialize, Serialize};

use crate::{Answer, Library};

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
    pub gpus: Vec<Seen>,
}

/// What NVML shows of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Seen {
    /// All that there is to know.
    Ok(Box<Gpu>),
    /// It cannot be used.
    Trouble {
        /// NVML's index.
        index: u32,
        /// The PCI address, if NVML still told it.
        pci: Option<String>,
        /// The UUID, if NVML still told it.
        uuid: Option<String>,
        /// Why.
        trouble: Trouble,
    },
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Ok(gpu) => gpu.fmt(f),
            Seen::Trouble { index, pci: Some(pci), .. } => write!(f, "GPU {index} ({pci})"),
            Seen::Trouble { index, .. } => write!(f, "GPU {index}"),
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

/// What the driver says that would help a GPU: field 230,
/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION` (nvml.h of 595 to 615; 6 and 7 are from 615).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing is wrong.
    None,
    /// A reset of the GPU.
    Reset,
    /// A reboot of the node.
    NodeReboot,
    /// To end what uses peer-to-peer access, and ask again.
    DrainP2p,
    /// To end what uses the GPU, and to reset it.
    DrainAndReset,
    /// To recover the IMEX domain.
    RecoverImexDomain,
    /// A reset of the bus.
    BusReset,
    /// A reboot of the system.
    SystemReboot,
    /// A number from after this program: it counts as a reboot, and somebody should look.
    Unknown(u32),
}

impl From<u32> for Recovery {
    fn from(number: u32) -> Self {
        match number {
            0 => Recovery::None,
            1 => Recovery::Reset,
            2 => Recovery::NodeReboot,
            3 => Recovery::DrainP2p,
            4 => Recovery::DrainAndReset,
            5 => Recovery::RecoverImexDomain,
            6 => Recovery::BusReset,
            7 => Recovery::SystemReboot,
            number => Recovery::Unknown(number),
        }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recovery::None => f.write_str("none"),
            Recovery::Reset => f.write_str("reset of the GPU"),
            Recovery::NodeReboot => f.write_str("reboot of the node"),
            Recovery::DrainP2p => f.write_str("drain of peer-to-peer users"),
            Recovery::DrainAndReset => f.write_str("drain and reset"),
            Recovery::RecoverImexDomain => f.write_str("recovery of the IMEX domain"),
            Recovery::BusReset => f.write_str("reset of the bus"),
            Recovery::SystemReboot => f.write_str("reboot of the system"),
            Recovery::Unknown(number) => write!(f, "number {number}, which this version does not know"),
        }
    }
}
