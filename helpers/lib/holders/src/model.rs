// SPDX-License-Identifier: MIT
//! What a scan tells: plain data, the same in the library, in `status --json` and in the ledger.
//!
//! Names in JSON: fields in snake_case, values of enumerations in kebab-case. Every text that
//! comes from a process (command line, name, path) is escaped for display, see
//! [`escape`](crate::text::escape): no byte is lost and no control character reaches a terminal.

use crate::device::Device;
use serde::{Deserialize, Serialize};
use std::fmt;
use step::BY_NAME;

/// The answer to "who has the GPU".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The modules that have to go, dependents first; empty when the driver is not loaded.
    pub modules: Vec<Module>,
    /// Every process that keeps the driver loaded, by pid.
    pub holders: Vec<Holder>,
    /// Text consoles drawn on a framebuffer of the driver.
    pub consoles: Vec<Console>,
    /// References that the holders found do not account for.
    pub unexplained: Vec<Unexplained>,
    /// What could not be looked at, and why, one sentence each.
    pub unseen: Vec<String>,
    /// False when the reference counts alone showed that there is no holder to look for.
    pub searched: bool,
}

impl Scan {
    /// Whether nothing that is known, nothing unexplained and no module of others stands in the
    /// way of an unload.
    pub fn is_free(&self) -> bool {
        self.holders.is_empty() && self.modules.iter().all(|module| module.excess() == 0)
    }

    /// Whether nothing is left but what the kernel itself holds and later steps take: consoles, and modules
    /// that do not stand in the driver's `holders`.
    pub fn is_left_to_the_kernel(&self) -> bool {
        let is_kernels = !self.consoles.is_empty() || taken_by_name(&self.modules) > 0;
        self.searched && self.holders.is_empty() && self.unexplained.is_empty() && is_kernels
    }

    /// Adds what NVML reports: pid and, where known, bytes of GPU memory, one entry a process and GPU.
    /// Returns the processes that NVML knows and the search did not find.
    pub fn add_gpu_memory(&mut self, list: &[(i32, Option<u64>)]) -> Vec<i32> {
        let mut unknown = Vec::new();
        for (pid, bytes) in list {
            match self.holders.iter_mut().find(|holder| holder.pid == *pid) {
                Some(holder) => {
                    if let Some(bytes) = bytes {
                        holder.gpu_memory = Some(holder.gpu_memory.unwrap_or(0).saturating_add(*bytes));
                    }
                }
                None if unknown.contains(pid) => {}
                None => unknown.push(*pid),
            }
        }
        unknown
    }

    /// Modules that stand on the driver's but do not come with it (gdrdrv, nvidia_fs, …).
    pub fn kernel_holders(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter().filter(|module| !module.of_driver)
    }
}

/// One loaded module of the graph that ends in `nvidia`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// The name the kernel knows, with underscores.
    pub name: String,
    /// `/sys/module/NAME/refcnt`. Negative while the module is going away; none where the kernel cannot unload
    /// modules (built without CONFIG_MODULE_UNLOAD), and counts nothing.
    pub refcount: Option<i64>,
    /// The loaded modules that stand on this one (`/sys/module/NAME/holders`).
    pub dependents: Vec<String>,
    /// Whether it is NVIDIA's driver itself rather than a module of others that uses it.
    pub of_driver: bool,
}

impl Module {
    /// References that do not come from loaded modules: open files and the like. Not a number of
    /// clients: one open file is one to three references, by driver version.
    /// 0 where the kernel counts nothing.
    pub fn excess(&self) -> u64 {
        let references = self.refcount.map_or(0, |count| count - self.dependents.len() as i64);
        u64::try_from(references).unwrap_or(0)
    }

    /// Whether the count shows that no process uses it.
    pub fn is_unused(&self) -> bool {
        self.refcount.is_some() && self.excess() == 0
    }
}

/// A process that keeps the driver loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process, as the initial pid namespace numbers it.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, clock ticks from boot to the start of the process. Together
    /// with the pid it names one process of this boot for ever.
    pub start_ticks: u64,
    /// Start of the process, seconds since 1970.
    pub since: Option<u64>,
    /// The user: the effective one, or the real one where a set-uid program runs with the rights of
    /// another.
    pub uid: u32,
    /// The name of that user, where `/etc/passwd` has one.
    pub user: Option<String>,
    /// The short name of the process (`/proc/PID/comm`), escaped.
    pub comm: String,
    /// The command line, an escaped string an argument; empty for a zombie.
    pub command: Vec<String>,
    /// State letter of `/proc/PID/stat`: `D` is uninterruptible sleep, `Z` a zombie.
    pub state: char,
    /// What it holds: one entry for a device and a way of holding it.
    pub devices: Vec<Device>,
    /// Who has to be asked to let go.
    pub owner: Owner,
    /// Whether it drives a screen: a display server or compositor.
    pub screen: bool,
    /// GPU memory in bytes, where NVML reports it.
    pub gpu_memory: Option<u64>,
}

impl Holder {
    /// The command line as one line for a person; the short name in brackets when it is empty.
    pub fn command_line(&self) -> String {
        if self.command.is_empty() { format!("[{}]", self.comm) } else { self.command.join(" ") }
    }
}

/// Who has to be asked so that a process lets go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Owner {
    /// A container's engine.
    Container(Container),
    /// The service manager.
    SystemUnit {
        /// The unit, such as `nvidia-persistenced.service`.
        unit: String,
        /// The slice it runs in; the root slice is `-.slice`.
        slice: String,
    },
    /// A user's service manager.
    UserUnit {
        /// The user whose manager it is.
        uid: u32,
        /// The unit.
        unit: String,
    },
    /// A login session.
    Session {
        /// logind's id of the session.
        id: String,
        /// The user whose session it is.
        uid: Option<u32>,
    },
    /// A step of a Slurm job.
    SlurmStep {
        /// The job's number.
        job: String,
        /// `0`, `batch`, `extern`, `interactive`.
        step: String,
    },
    /// None: a plain process.
    Process,
}

/// A container, as far as the cgroup and the engine's files on disk tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Container {
    /// Which engine runs it.
    pub engine: Engine,
    /// The engine's id, or the name where the engine has no ids.
    pub id: String,
    /// The user whose engine it is, for a rootless one. Then all of this is that user's claim,
    /// until the user's own engine confirms it.
    pub uid: Option<u32>,
    /// The unit that the container is a part of (a Quadlet service): it has to be asked, the
    /// engine would be overruled by it.
    pub unit: Option<String>,
    /// The control group that carries the id: the process is in it or below it. As the kernel has it, to be
    /// compared.
    #[serde(default)]
    pub group: String,
    /// The Kubernetes pod.
    pub pod: Option<Pod>,
}

/// A Kubernetes pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pod {
    /// The pod's uid, with dashes.
    pub uid: String,
    /// Its name, where the runtime's files tell.
    pub name: Option<String>,
    /// Its namespace, where the runtime's files tell.
    pub namespace: Option<String>,
}

/// A container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd, by the Kubernetes interface or by nerdctl.
    Containerd,
    /// CRI-O.
    Crio,
    /// LXC, LXD, Incus.
    Lxc,
    /// systemd-nspawn and other machines known to machined.
    Machine,
    /// A container by the shape of its cgroup, of an engine that the cgroup does not name.
    Unknown,
}

/// A text console drawn on a framebuffer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// Such as `vtcon1`, in `/sys/class/vtconsole`.
    pub name: String,
    /// The kernel's name for what draws it, such as `(M) frame buffer device`.
    pub driver: String,
    /// The driver's framebuffers it may be drawn on, such as `fb0`.
    pub framebuffers: Vec<String>,
}

/// References to a module that no holder found accounts for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unexplained {
    /// The module.
    pub module: String,
    /// References that remain when every open file found is counted at the most it can take.
    pub references: u64,
    /// Where they may be, the likeliest first.
    pub places: Vec<Place>,
}

impl fmt::Display for Unexplained {
    /// `1 reference to nvidia_drm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.references == 1 { "" } else { "s" };
        write!(f, "{} reference{s} to {}", self.references, self.module)
    }
}

/// A place where a reference may hide from the file tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Place {
    /// Descriptors in flight in a unix socket, sent and not received.
    Socket {
        /// Who has the socket's receiving end.
        pid: i32,
        /// See [`Holder::start_ticks`].
        start_ticks: u64,
        /// Its short name, escaped.
        comm: String,
        /// The socket's descriptor.
        fd: i32,
        /// Descriptors in flight in it (`scm_fds`).
        in_flight: u64,
        /// The user who has it, where it was looked at.
        #[serde(default)]
        uid: Option<u32>,
        /// The user at the other end, as the kernel noted when the two were connected; none where the
        /// kernel does not know which that is, or the connection is not accepted yet.
        #[serde(default)]
        sender: Option<u32>,
        /// Its address, escaped; an abstract one begins with `@`, and most have none.
        #[serde(default)]
        address: String,
    },
    /// Files registered with an io_uring.
    IoUring {
        /// Who has the ring.
        pid: i32,
        /// See [`Holder::start_ticks`].
        start_ticks: u64,
        /// Its short name, escaped.
        comm: String,
        /// The ring's descriptor.
        fd: i32,
        /// Files registered.
        files: u64,
    },
    /// A dma-buf whose exporter does not tell which driver it stands for.
    DmaBuf {
        /// Who has the buffer.
        pid: i32,
        /// See [`Holder::start_ticks`].
        start_ticks: u64,
        /// Its short name, escaped.
        comm: String,
        /// The buffer's descriptor.
        fd: i32,
    },
    /// Inside the kernel, or in what could not be looked at.
    Kernel {
        /// What it may be.
        what: String,
    },
}

/// How many references to the driver those of `modules` take that do not stand in its `holders`.
pub fn taken_by_name(modules: &[Module]) -> u64 {
    let is_listed = |name: &str| {
        let driver = modules.iter().find(|module| module.name == graph::DRIVER);
        driver.is_some_and(|driver| driver.dependents.iter().any(|dependent| dependent == name))
    };
    let is_loaded = |name: &str| modules.iter().any(|module| module.name == name);
    BY_NAME.iter().filter(|(name, _)| is_loaded(name) && !is_listed(name)).map(|(_, taken)| taken).sum()
}
