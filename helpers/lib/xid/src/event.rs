// SPDX-License-Identifier: MIT
//! What a kernel message of the driver can be.

use serde::Serialize;

use crate::Address;

/// A message of the driver, understood. The names are those of the JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// `NVRM: Xid (PCI:…): N, …`: an error that a GPU reports.
    Xid(Xid),
    /// `nvidia-nvswitchN: SXid (PCI:…): N, …`: an error that a switch reports.
    Sxid(Sxid),
    /// The registers that belong to the SXid before it.
    SxidData {
        /// The switch.
        switch: u32,
        /// Where it sits.
        #[serde(flatten)]
        at: Location,
        /// The SXid.
        sxid: u32,
    },
    /// The GPU is not on the bus any more.
    GpuLost(GpuLost),
    /// The serial number of a lost GPU, or, without an address, of the one in the message before.
    GpuSerial {
        /// Which GPU, where the message says.
        pci: Option<Address>,
        /// As the driver writes it.
        serial: String,
    },
    /// The UUID of a GPU, once a driver load.
    GpuUuid {
        /// Which GPU.
        pci: Address,
        /// `GPU-…`.
        uuid: String,
    },
    /// The driver could not start a GPU.
    RmInitFailed {
        /// Which GPU.
        #[serde(flatten)]
        at: Location,
        /// `0x62:0x65:1792`: state, status and line in the driver's source.
        code: String,
    },
    /// The GPU's firmware did not start.
    GspInitFailed {
        /// The driver's own number of the GPU, which is no address.
        gpu_instance: Option<u32>,
    },
    /// The GPU's protected memory region is still set up from before: a reload does not clear that.
    Wpr2Up {
        /// The driver's own number of the GPU, which is no address.
        gpu_instance: Option<u32>,
    },
    /// The firmware keeps failing to answer.
    GspRatelimit {
        /// Which GPU.
        pci: Address,
    },
    /// The driver took none of so many devices.
    ProbeFailed {
        /// How many.
        count: u32,
    },
    /// The GPU is served by the open kernel modules only.
    NeedsOpenModule {
        /// Which GPU.
        #[serde(flatten)]
        at: Location,
        /// Its PCI device id, in hexadecimal digits.
        device_id: String,
    },
    /// A program with libraries of another version than the driver's.
    ApiMismatch(ApiMismatch),
    /// The driver was loaded.
    DriverLoad {
        /// Its version.
        version: String,
        /// Whether these are the open kernel modules.
        open: bool,
    },
    /// `nvGpuOpsReportFatalError`: from here on no GPU of this machine does CUDA work until a reboot.
    UvmFatal {
        /// The status, as the driver writes it: `0x60`.
        error: String,
    },
    /// A GPU is being removed from the driver while somebody uses it.
    UnbindWait {
        /// Which GPU.
        #[serde(flatten)]
        at: Location,
    },
    /// That wait is over.
    UnbindDone {
        /// Which GPU.
        #[serde(flatten)]
        at: Location,
    },
    /// nvidia-modeset was loaded.
    ModesetLoad {
        /// Its version.
        version: String,
    },
    /// nvidia-modeset is being unloaded.
    ModesetUnload,
    /// nvidia-modeset reports an error.
    ModesetError(ModesetError),
    /// nvidia-modeset reports something odd.
    ModesetWarning {
        /// nvidia-modeset's own number of the GPU.
        gpu_index: u32,
    },
    /// The links to the other GPUs could not be found.
    NvlinkRxdetFailed,
}

/// A PCI address with the function, where the message has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The address.
    pub pci: Address,
    /// The function.
    #[serde(rename = "fn")]
    pub function: Option<u8>,
}

/// An Xid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Xid {
    /// Which GPU.
    #[serde(flatten)]
    pub at: Location,
    /// The MIG GPU instance.
    pub gi: Option<u32>,
    /// The MIG compute instance.
    pub ci: Option<u32>,
    /// The code.
    pub xid: u32,
    /// The process, where the driver knows it.
    pub pid: Option<u32>,
    /// The process's name, of at most 15 bytes and whatever it likes.
    pub name: Option<String>,
    /// What comes after that.
    pub msg: String,
    /// What of it is understood.
    #[serde(flatten)]
    pub detail: Detail,
}

/// What the text of an Xid says, where it says more than its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Detail {
    /// Nothing that is understood.
    None {},
    /// 13: which part of the GPU.
    Part {
        /// The graphics processing cluster.
        gpc: u32,
        /// The texture processing cluster in it.
        tpc: u32,
        /// The streaming multiprocessor in that.
        sm: Option<u32>,
    },
    /// 45: what came before.
    CausedBy {
        /// The Xid that made the driver tear down the channel.
        caused_by: u32,
    },
    /// 48: in which memory.
    Memory {
        /// `framebuffer`, for example.
        unit: String,
    },
    /// 63: a row of memory.
    Remap {
        /// Only a reset puts the spare row in its place.
        reset_pending: bool,
    },
    /// 74: a link.
    NvLink {
        /// Its number.
        link: Option<u32>,
        /// The seven registers, where the driver gives them.
        regs: Option<Vec<String>>,
    },
    /// 94 and 95: what recovery was chosen.
    Contained {
        /// A reset.
        rst: bool,
        /// Drain, then a reset.
        drst: bool,
    },
    /// 119: a question to the GPU's firmware that stays without an answer.
    Rpc {
        /// How long it was waited, in seconds.
        timeout_s: Option<u32>,
        /// The number of the question.
        rpc: Option<u32>,
        /// Its sequence number.
        sequence: Option<u32>,
    },
    /// 144 to 150: an NVLink 5 unit.
    NvLink5(Reported),
    /// 154: what the driver itself says has to be done.
    Recovery {
        /// `NVML_GPU_RECOVERY_ACTION_*` before.
        action_from: u32,
        /// And from now on.
        action_to: u32,
    },
}

/// What an NVLink 5 unit reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reported {
    /// The unit.
    pub sub: String,
    /// How bad.
    pub severity: Severity,
    /// Cross-contained or not: the number behind `XC`.
    pub xc: u32,
    /// Injected or not: the number behind `i`.
    pub injected: u32,
    /// The link, -1 for none.
    pub link: i32,
    /// Which unit and subcode, for [`crate::resolution`].
    pub intrinfo: String,
    /// Which error, for the same.
    pub status: String,
}

/// How bad the reporter itself thinks it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot go on.
    Fatal,
    /// It goes on.
    Nonfatal,
    /// It repaired that itself.
    Correctable,
}

/// An SXid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sxid {
    /// The switch.
    pub switch: u32,
    /// Where it sits.
    #[serde(flatten)]
    pub at: Location,
    /// The code.
    pub sxid: u32,
    /// What the message says of it.
    pub severity: Severity,
    /// The link, where it is of one.
    pub link: Option<u32>,
    /// Fatal, and of the codes that no reset of a single GPU cures.
    pub always_fatal: bool,
    /// What comes after the severity.
    pub msg: String,
}

/// A GPU that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuLost {
    /// Which GPU.
    #[serde(flatten)]
    pub at: Location,
    /// Its PCI device id, in hexadecimal digits, where it was lost before the driver took it.
    pub device_id: Option<String>,
    /// The Xid that says the same, where there is one.
    pub dedup_of: Option<u32>,
}

/// A program of another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiMismatch {
    /// The program's name, from 575 on.
    pub client: Option<String>,
    /// The process, from 575 on.
    pub pid: Option<u32>,
    /// The version of its library.
    pub client_version: String,
    /// The version of the loaded driver.
    pub module_version: String,
}

/// What nvidia-modeset says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModesetError {
    /// nvidia-modeset's own number of the GPU.
    pub gpu_index: u32,
    /// It waits for a GPU that does not move: an unload of nvidia_drm would not end.
    pub stuck: bool,
    /// The message.
    pub msg: String,
}

impl Event {
    /// The GPU or switch that this is about, where the message says.
    pub fn address(&self) -> Option<Address> {
        match self {
            Event::Xid(Xid { at, .. })
            | Event::Sxid(Sxid { at, .. })
            | Event::SxidData { at, .. }
            | Event::GpuLost(GpuLost { at, .. })
            | Event::RmInitFailed { at, .. }
            | Event::NeedsOpenModule { at, .. }
            | Event::UnbindWait { at }
            | Event::UnbindDone { at } => Some(at.pci),
            Event::GpuUuid { pci, .. } | Event::GspRatelimit { pci } => Some(*pci),
            Event::GpuSerial { pci, .. } => *pci,
            _ => None,
        }
    }
}
