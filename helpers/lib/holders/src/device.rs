// SPDX-License-Identifier: MIT
//! What a process holds of the driver, and how.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A device number: the only identity that a device node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rdev {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl fmt::Display for Rdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A device that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its number, `MAJOR:MINOR`; absent for a buffer, which has none.
    pub rdev: Option<Rdev>,
    /// What it is.
    pub kind: Kind,
    /// The kernel's or NVIDIA's name for it: `nvidia0`, `nvidiactl`, `card0`.
    pub name: String,
    /// The module that cannot be unloaded while it is held.
    pub module: String,
    /// How it is held.
    pub via: Via,
    /// Descriptors or mappings of this kind on this device in this process.
    pub count: u32,
    /// The path as the process sees it, escaped. For display only: it identifies nothing.
    pub path: String,
}

/// What a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `/dev/nvidiaN`.
    Gpu,
    /// `/dev/nvidiactl`, which every client holds.
    Ctl,
    /// `/dev/nvidia-modeset`: a display server.
    Modeset,
    /// `/dev/nvidia-uvm`: CUDA.
    Uvm,
    /// `/dev/nvidia-uvm-tools`: a profiler.
    UvmTools,
    /// `/dev/nvidia-caps/*`: MIG and fabric capabilities.
    Caps,
    /// `/dev/nvidia-nvswitch*`: Fabric Manager.
    Nvswitch,
    /// `/dev/nvidia-nvlink`.
    Nvlink,
    /// `/dev/nvidia-caps-imex-channels/*`.
    Imex,
    /// `/dev/dri/cardN`.
    DrmCard,
    /// `/dev/dri/renderDN`.
    DrmRender,
    /// `/dev/fbN`.
    Framebuffer,
    /// A dma-buf that the driver exported.
    DmaBuf,
    /// Any other node whose device or module is the driver's (i2c, gdrdrv, nvidia-fs).
    Other,
}

/// How a process holds a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// A descriptor in the table of the process.
    Fd,
    /// A descriptor in a table that only one of its threads has.
    ThreadFd,
    /// A mapping; it may outlive its descriptor.
    Map,
    /// A descriptor that was sent to it over a unix socket, and that it has not received yet.
    InFlight,
}

impl Serialize for Rdev {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rdev {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.split_once(':')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }))
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not MAJOR:MINOR")))
    }
}
