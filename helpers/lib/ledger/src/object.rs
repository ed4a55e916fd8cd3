// SPDX-License-Identifier: MIT
//! What a run takes away, each with all that is needed to put it back without asking anyone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gpu::Setting;

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
    /// The same without what only a restart needs and only root may read: a container's definition has its
    /// environment in it.
    pub fn without_secrets(self) -> Self {
        match self {
            Object::Container(container) => Object::Container(Container { definition: None, ..container }),
            other => other,
        }
    }

    /// Whether it is unit `name` of the system's manager: a user's manager may have one of the same name.
    pub fn is_system_unit(&self, name: &str) -> bool {
        matches!(self, Object::Unit(unit) if unit.user.is_none() && unit.name == name)
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
