// SPDX-License-Identifier: MIT
//! What a run takes away, each with all that is needed to put it back without asking anyone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gpu::{Gpu, Setting};
use crate::install::Install;

/// A step of a run, in the order in which the steps run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Refuses, or opens the run.
    Preflight,
    /// Stops the containers that have a GPU.
    DrainContainers,
    /// Stops the systemd units that own holders.
    StopUnits,
    /// Ends the processes that nobody owns.
    KillHolders,
    /// Takes the console from NVIDIA's framebuffer.
    UnbindVt,
    /// Resets the GPUs; only in a reset.
    GpuReset,
    /// Gives back what was set on the GPUs, which goes with the driver: no unit of its own.
    Settings,
    /// Unloads the modules.
    RmmodChain,
    /// Exchanges the driver's files on disk, where that was asked for; puts the old ones back.
    InstallDriver,
    /// Loads the modules.
    ModprobeChain,
    /// Compares what is loaded now with what should be.
    Verify,
    /// Gives everything back.
    Restore,
    /// Ends a run that failed.
    Rollback,
}

impl Step {
    /// All steps of a reload, in order.
    pub const ALL: [Step; 10] = [
        Step::Preflight,
        Step::DrainContainers,
        Step::StopUnits,
        Step::KillHolders,
        Step::UnbindVt,
        Step::RmmodChain,
        Step::InstallDriver,
        Step::ModprobeChain,
        Step::Verify,
        Step::Restore,
    ];

    /// All steps of a reset, in order.
    pub const RESET: [Step; 6] = [
        Step::Preflight,
        Step::DrainContainers,
        Step::StopUnits,
        Step::KillHolders,
        Step::UnbindVt,
        Step::GpuReset,
    ];

    /// The steps that take something and restore it, in the order of the taking: those of a reload,
    /// and the settings, which go with the driver.
    pub const TAKING: [Step; 11] = [
        Step::Preflight,
        Step::DrainContainers,
        Step::StopUnits,
        Step::KillHolders,
        Step::UnbindVt,
        Step::Settings,
        Step::RmmodChain,
        Step::InstallDriver,
        Step::ModprobeChain,
        Step::Verify,
        Step::Restore,
    ];

    /// The name in file names, unit names and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Step::Preflight => "preflight",
            Step::DrainContainers => "drain-containers",
            Step::StopUnits => "stop-units",
            Step::KillHolders => "kill-holders",
            Step::UnbindVt => "unbind-vt",
            Step::GpuReset => "gpu-reset",
            Step::Settings => "settings",
            Step::RmmodChain => "rmmod-chain",
            Step::InstallDriver => "install-driver",
            Step::ModprobeChain => "modprobe-chain",
            Step::Verify => "verify",
            Step::Restore => "restore",
            Step::Rollback => "rollback",
        }
    }

    /// The systemd unit that runs the step.
    pub fn unit(self) -> String {
        format!("nvidia-reload-{}.service", self.name())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A thing that a step takes away or brings in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Object {
    /// A container that was stopped.
    Container(Container),
    /// A systemd unit that was stopped.
    Unit(Unit),
    /// A process that was ended. It cannot come back: the record is for the people who ask.
    Process(Process),
    /// A login session whose devices logind was made to close, for the people who ask: it has them no more.
    Session(Session),
    /// A virtual terminal's console that was unbound from its framebuffer.
    Console(Console),
    /// A kernel module: unloaded by rmmod-chain, loaded by modprobe-chain.
    Module(Module),
    /// The driver's files on disk.
    DriverFiles(DriverFiles),
    /// The loaded driver's libraries, which were found before those on disk, and are not any more.
    Healed {
        /// The driver's version.
        version: String,
        /// The version of the libraries on disk, when that began.
        instead_of: Option<String>,
        /// The CDI specifications that were written again for them.
        #[serde(default)]
        cdi: Vec<String>,
    },
    /// What was set on a GPU.
    Settings(Settings),
    /// The CDI specifications, which describe the driver that was loaded when they were written.
    Cdi {
        /// Their files.
        paths: Vec<String>,
    },
    /// The gate that keeps the driver from being loaded behind our back.
    Gate {
        /// The modprobe.d file that holds the gate.
        path: String,
    },
}

impl Object {
    /// The same without what only a restart needs and nobody else may read: a container's definition has its
    /// environment in it.
    pub fn without_secrets(self) -> Self {
        match self {
            Object::Container(container) => Object::Container(Container { definition: None, ..container }),
            other => other,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Container(c) => {
                write!(f, "{} container {} ({:.12})", c.engine, c.name, c.id)?;
                c.user.map_or(Ok(()), |uid| write!(f, " of user {uid}"))
            }
            Object::Unit(u) => match u.user {
                None => f.write_str(&u.name),
                Some(uid) => write!(f, "{} of user {uid}", u.name),
            },
            Object::Process(p) => write!(f, "process {} ({})", p.pid, p.command),
            Object::Session(s) => write!(f, "the display devices of session {} of user {}", s.id, s.user),
            Object::Console(c) => write!(f, "console {} ({})", c.vtcon, c.driver),
            Object::Module(m) => match &m.version {
                Some(version) => write!(f, "module {} {version}", m.name),
                None => write!(f, "module {}", m.name),
            },
            Object::DriverFiles(d) => write!(f, "the files of driver {}", d.version),
            Object::Healed { version, .. } => {
                write!(f, "the libraries of driver {version} before those on disk")
            }
            Object::Settings(s) => write!(f, "settings of GPU {} ({})", s.pci, s.uuid),
            Object::Cdi { paths } if paths.is_empty() => f.write_str("the CDI specifications"),
            Object::Cdi { paths } => write!(f, "the CDI specifications {}", paths.join(", ")),
            Object::Gate { .. } => f.write_str("the gate"),
        }
    }
}

/// A container, as its engine knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// `docker`, `podman`, or `containerd` for a container of a pod.
    pub engine: String,
    /// The engine's API socket.
    pub socket: String,
    /// The engine's full id.
    pub id: String,
    /// The container's name, without a leading slash.
    pub name: String,
    /// Whether it was paused; else it was running.
    pub paused: bool,
    /// The user whose engine it is; none for the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// How long to wait for its health check after its start, in seconds; none not to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_timeout: Option<u64>,
    /// It needs neither a CDI specification nor another container: it is restarted before the specifications
    /// are refreshed. False where that is not known for certain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub before_cdi: bool,
    /// What its engine recreates it from, where it is deleted when it stops. In the engine's own
    /// words, with its environment: the file is root's alone to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<serde_json::Value>,
    /// The pod it is of: another container is started in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

/// What names a container of a pod whatever its id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// The pod's UID.
    pub uid: String,
    /// The container's name in the pod.
    pub container: String,
    /// How long the kubelet gets until it runs again, in seconds.
    pub timeout: u64,
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// The unit's name, with its suffix.
    pub name: String,
    /// The user whose manager runs it; none for the system's.
    pub user: Option<u32>,
    /// Why it was stopped: `holder`, `trigger` of one, or `dependent` on one; `kubelet` for what would
    /// start the containers of pods again. Of those that the run did not stop: `felled` for one that failed and
    /// is to run, `fabric` for the one without which the GPUs are not in the fabric.
    pub role: String,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The process id, in our pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot: with the pid, its identity.
    pub start_ticks: u64,
    /// The user it ran as.
    pub uid: u32,
    /// The command line, escaped for display.
    pub command: String,
}

/// A login session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// logind's id of it.
    pub id: String,
    /// Its user.
    pub user: u32,
}

/// A console of the virtual terminals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// The name under `/sys/class/vtconsole`.
    pub vtcon: String,
    /// What the kernel calls it, such as `(M) frame buffer device`.
    pub driver: String,
}

/// A kernel module as it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// The name under `/sys/module`.
    pub name: String,
    /// `/sys/module/NAME/version`, where the module declares one.
    pub version: Option<String>,
    /// `/sys/module/NAME/srcversion`, where the module declares one.
    pub srcversion: Option<String>,
    /// `/sys/module/NAME/parameters`, those that root can read, and what the driver tells of its others.
    pub parameters: BTreeMap<String, String>,
}

/// The driver's files on disk, before they are exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriverFiles {
    /// The driver that is loaded, or was when the run began: the one whose files are put back.
    pub version: String,
    /// The other drivers whose files are on disk, or are about to be.
    pub others: BTreeSet<String>,
}

/// What was set on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The GPU's PCI address, as the kernel writes it.
    pub pci: String,
    /// The GPU's UUID.
    pub uuid: String,
    /// In the order in which they are to be set again.
    pub settings: Vec<Setting>,
}

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
    /// before its turn is told apart from what a person did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// When the `dockerd` of then had started, in clock ticks since boot: with another, it has died since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerd: Option<u64>,
    /// Whether it keeps the machine without workloads, or without driver, until a person ends it; not known of a
    /// run that an older version began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<bool>,
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
