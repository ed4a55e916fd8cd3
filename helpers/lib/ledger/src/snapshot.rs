// SPDX-License-Identifier: MIT
//! The machine when a run began.

use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;
use crate::install::Install;
use crate::object::{Container, Module};

/// A device node of the driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The absolute path, such as `/dev/nvidia-uvm`.
    pub path: String,
    /// The name of its major number in `/proc/devices`: numbers move, names stay.
    pub class: String,
    /// The major number it had.
    pub major: u32,
    /// The minor number, which belongs to the class and stays.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A GPU that a reset is for, where it is not for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// The PCI address, as the kernel writes it.
    pub pci: String,
    /// What its device nodes are called, such as `nvidia3` and `renderD129`.
    pub nodes: Vec<String>,
}

/// The machine as it was when the run began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The run resets the GPUs, and leaves `nvidia` itself loaded.
    #[serde(default)]
    pub reset: bool,
    /// The GPUs that are reset; empty for all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chosen: Vec<Chosen>,
    /// The driver's modules, in the order in which they were loaded.
    pub modules: Vec<Module>,
    /// The driver's device nodes.
    pub nodes: Vec<Node>,
    /// PCI addresses of the GPUs bound to the driver.
    pub gpus: Vec<String>,
    /// The units that look after a container with a GPU, and would start it again.
    #[serde(default)]
    pub container_units: Vec<String>,
    /// The same of users' own managers, with the user.
    #[serde(default)]
    pub user_container_units: Vec<(u32, String)>,
    /// The GPUs as NVML showed them; empty where it showed none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Gpu>,
    /// How many containers are started at once, as the configuration said when the run began; 0 for four a
    /// core.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parallel: usize,
    /// The containers with a GPU that ran when the run began and that it stops itself: whatever ends one of them
    /// before its turn can be distinguished from what a person did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// When the `dockerd` of then had started, in clock ticks since boot: with another, it has died since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerd: Option<u64>,
    /// Whether it keeps the machine without workloads, or without driver, until a person ends it; not known of a
    /// run that an older version began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<bool>,
    /// NVIDIA's services that are on the machine, and down, and that no unit wants: one of them that fails is not
    /// started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwanted_services: Vec<String>,
    /// The driver that the run puts on disk before it loads; without, it loads what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<Install>,
    /// What started it; not known of a run that was started by `systemctl`, or by an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<Starter>,
}

/// What started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Starter {
    /// The subcommand that was typed, such as `reload`.
    pub command: String,
    /// The system's unit in which it ran; none in a login session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The user who had logged in, as the kernel's audit has it; none where no login led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<u32>,
}

// serde gives a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Snapshot {
    /// What the device nodes of the chosen GPUs are called; empty where the run is for all.
    pub fn chosen_nodes(&self) -> impl Iterator<Item = String> {
        self.chosen.iter().flat_map(|gpu| gpu.nodes.iter().cloned())
    }
}
