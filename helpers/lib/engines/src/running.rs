// SPDX-License-Identifier: MIT
//! The processes of engines, as far as they decide whom to ask, and where the bundles of their containers lie.
//!
//! Where an engine keeps its bundles is nothing that a configuration has to tell: containerd's shims run in
//! the directory of a bundle, whatever `state` or `--exec-root` is (k3s, rke2, k0s, microk8s, Docker of a
//! snap), and conmon is given it, whatever the storage of Podman or CRI-O is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use step::Root;

use crate::bundle::{Bundle, is_id};
use crate::clients::unit_of;
use crate::ids::{Ids, is_roots};

/// What the kernel keeps of `containerd-shim-runc-v2`, and of every other shim of containerd's.
const SHIM: &[u8] = b"containerd-shim";

/// containerd's namespaces: Docker's, and the kubelet's.
pub(crate) const DOCKERS: &str = "moby";
pub(crate) const PODS: &str = "k8s.io";

/// Where shims have their bundles that do not tell, by namespace: containerd's own default, and that of one
/// that dockerd runs.
const USUAL: [&str; 2] = [
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/docker/containerd/daemon/io.containerd.runtime.v2.task",
];

/// Where Podman and CRI-O have them, where no process tells: by their drivers, before `-containers`.
const STORES: [&str; 2] = ["/var/lib/containers/storage", "/run/containers/storage"];
const DRIVERS: [&str; 5] = ["overlay", "btrfs", "vfs", "zfs", "overlay2"];

/// CRI-O's socket where its command line does not say another.
const CRIO: &str = "/run/crio/crio.sock";

/// containerd's.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// The process that an engine is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Daemon {
    /// When it started, in clock ticks since boot; zero where the kernel does not tell.
    pub started: u64,
    /// The system's unit that it runs in.
    pub unit: Option<String>,
}

impl Daemon {
    fn of(process: &Path) -> Option<Self> {
        let stat = fs::read(process.join("stat")).ok();
        let started = stat.and_then(|stat| holders::Stat::parse(&stat)).map_or(0, |stat| stat.start_ticks);
        let group = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let unit = group.lines().find_map(|line| line.rsplit('/').find(|part| part.ends_with(".service")));
        Some(Self { started, unit: unit.map(str::to_owned) })
    }
}

/// The processes of engines, as far as they decide whether to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    dockerd: Option<Daemon>,
    /// CRI-O's socket, where it or a container of it runs.
    crio: Option<String>,
    /// Those of the host's root that have a child: a shim without one is what is left of a container.
    shims: Vec<Shim>,
    /// Directories with bundles, each once, by their namespaces.
    places: Vec<Place>,
    monitors: Vec<Monitor>,
    /// The configurations that daemons were started with, and the directories of CDI specifications.
    configurations: Vec<String>,
    spec_directories: Vec<String>,
    /// The units that kubelets run in, and those that containerds and CRI-Os do.
    kubelets: BTreeSet<String>,
    runtimes: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    namespace: String,
    /// Device and inode.
    identity: (u64, u64),
    directory: PathBuf,
}

/// The process that looks after a container of Podman's, or of CRI-O's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Monitor {
    user: u32,
    id: String,
    bundle: String,
    /// The runtime's program.
    runtime: Option<String>,
    is_crios: bool,
}

impl Running {
    /// Looks through `/proc`.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn look(root: &Root) -> io::Result<Self> {
        let mut running = Self::default();
        for (process, comm) in processes(root)? {
            match comm.as_slice() {
                b"conmon" => running.monitors.extend(Monitor::of(root, &process)),
                // A name is anybody's to take. Whose a process is takes longer to read than its name.
                b"dockerd" | b"crio" | SHIM | b"kubelet" | b"containerd"
                    if !is_roots(&process, &comm) || !is_ours(root, &process) => {}
                b"dockerd" => {
                    running.dockerd = Daemon::of(&process).max(running.dockerd.take());
                    running.configurations.extend(option(&process, &["--config-file"]));
                    running.spec_directories.extend(option(&process, &["--cdi-spec-dir"]));
                }
                b"crio" => {
                    running.runtimes.extend(unit(&process));
                    running.configurations.extend(option(&process, &["--config", "-c"]));
                    running.crio = Some(option(&process, &["--listen"]).unwrap_or_else(|| CRIO.to_owned()));
                }
                SHIM => running.note_shim(root, &process),
                b"kubelet" => running.kubelets.extend(unit(&process)),
                b"containerd" => {
                    running.runtimes.extend(unit(&process));
                    running.configurations.extend(option(&process, &["--config", "-c"]));
                }
                _ => {}
            }
        }
        // It may be away while its containers run.
        if running.crio.is_none() && running.monitors.iter().any(|monitor| monitor.is_crios) {
            running.crio = Some(CRIO.to_owned());
        }
        Ok(running)
    }

    fn note_shim(&mut self, root: &Root, process: &Path) {
        let Some(shim) = Shim::of(process).filter(|_| has_child(process)) else { return };
        if let Some(place) = Place::of(root, process, &shim.namespace)
            && !self
                .places
                .iter()
                .any(|known| known.identity == place.identity && known.namespace == place.namespace)
        {
            self.places.push(place);
        }
        self.shims.push(shim);
    }

    /// The sockets of the containerds that run pods.
    pub(crate) fn containerds(&self) -> BTreeSet<&str> {
        self.shims.iter().filter(|shim| shim.namespace == PODS).map(|shim| shim.address.as_str()).collect()
    }

    /// The files that the command lines of running daemons name.
    pub fn configurations(&self) -> impl Iterator<Item = &str> {
        self.configurations.iter().map(String::as_str)
    }

    /// The directories that they are to search for CDI specifications.
    pub fn spec_directories(&self) -> impl Iterator<Item = &str> {
        self.spec_directories.iter().map(String::as_str)
    }

    /// The socket of CRI-O, where that runs something.
    pub(crate) fn crio(&self) -> Option<&str> {
        self.crio.as_deref()
    }

    /// The `dockerd` of this machine: the one that started last, where there are several.
    pub fn dockerd(&self) -> Option<&Daemon> {
        self.dockerd.as_ref()
    }

    /// Whether a container of Docker's runs, with or without its daemon.
    pub(crate) fn has_dockers(&self) -> bool {
        self.shims.iter().any(|shim| shim.namespace == DOCKERS)
    }

    /// The unit that runs the kubelet; none where a stop of it would stop the runtime as well (k3s, rke2).
    pub(crate) fn kubelet(&self) -> Option<&str> {
        let mut units = self.kubelets.iter().map(String::as_str);
        units.next().filter(|unit| units.next().is_none() && !self.runtimes.contains(*unit))
    }

    /// The Podmans that run a container: root's is none, a user's own goes by the user id.
    pub fn podmans(&self) -> BTreeSet<Option<u32>> {
        let podmans = self.monitors.iter().filter(|monitor| !monitor.is_crios);
        podmans.map(|monitor| (monitor.user != 0).then_some(monitor.user)).collect()
    }

    /// The directory of the bundle of a container of a user's Podman.
    pub(crate) fn bundle(&self, uid: u32, id: &str) -> Option<&str> {
        self.monitor(uid, id).map(|monitor| monitor.bundle.as_str())
    }

    fn monitor(&self, uid: u32, id: &str) -> Option<&Monitor> {
        self.monitors.iter().find(|monitor| monitor.user == uid && monitor.id == id)
    }

    /// The program that is the runtime of a container of Podman's or CRI-O's.
    pub(crate) fn runtime(&self, uid: u32, id: &str) -> Option<&str> {
        self.monitor(uid, id)?.runtime.as_deref()
    }

    /// What a container of containerd's was started with; none where its bundle cannot be found.
    pub(crate) fn of_containerd(&self, root: &Root, namespace: &str, id: &str) -> Option<Bundle> {
        let known = self.places.iter().filter(|place| place.namespace == namespace);
        let usual = USUAL.iter().map(|place| root.path(place).join(namespace));
        let mut places = known.map(|place| place.directory.clone()).chain(usual);
        is_id(id).then(|| places.find_map(|place| Bundle::read(&place.join(id))))?
    }

    /// The same of root's Podman or of CRI-O.
    pub(crate) fn of_monitor(&self, root: &Root, id: &str) -> Option<Bundle> {
        if let Some(monitor) = self.monitor(0, id) {
            return Bundle::read(&root.path(&monitor.bundle));
        }
        let usual = STORES.iter().flat_map(|store| {
            DRIVERS.iter().map(move |driver| format!("{store}/{driver}-containers/{id}/userdata"))
        });
        is_id(id).then(|| usual.into_iter().find_map(|place| Bundle::read(&root.path(place))))?
    }

    /// All containers of containerd's that have a bundle: its namespace, its id, the socket of its containerd.
    pub(crate) fn all_of_containerd(&self) -> Vec<(&str, String, &str)> {
        let mut found = Vec::new();
        for place in &self.places {
            let shim = self.shims.iter().find(|shim| shim.namespace == place.namespace);
            let address = shim.map_or(CONTAINERD, |shim| &shim.address);
            for entry in fs::read_dir(&place.directory).into_iter().flatten().flatten() {
                let id = entry.file_name().to_string_lossy().into_owned();
                found.push((place.namespace.as_str(), id, address));
            }
        }
        found
    }
}

impl Place {
    /// The directory above the one that a shim runs in. By the shim, where it has a path of its own only in
    /// there (a snap's mount namespace).
    fn of(root: &Root, process: &Path, namespace: &str) -> Option<Self> {
        let own = fs::read_link(process.join("cwd")).ok()?;
        let identity = |path: &Path| {
            let directory = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
            Some((directory.dev(), directory.ino()))
        };
        let named = root.path(own.parent()?.to_str()?);
        let seen = process.join("cwd/..");
        let (directory, identity) = match (identity(&seen), identity(&named)) {
            (Some(seen), Some(is)) if seen == is => (named, is),
            (Some(is), _) => (seen, is),
            (None, Some(is)) => (named, is),
            (None, None) => return None,
        };
        Some(Self { namespace: namespace.to_owned(), identity, directory })
    }
}

impl Monitor {
    fn of(root: &Root, process: &Path) -> Option<Self> {
        let user = Ids::of(process)?.user;
        // Root of a container is not the host's.
        if user == 0 && !is_ours(root, process) {
            return None;
        }
        Some(Self {
            user,
            id: option(process, &["-c", "--cid"])?,
            bundle: option(process, &["-b", "--bundle"])?,
            runtime: option(process, &["-r", "--runtime"]),
            // Both run it, and each has its containers' ends noted in a directory of its own.
            is_crios: user == 0
                && option(process, &["--exit-dir", "-e"])
                    .is_some_and(|directory| directory.contains("/crio")),
        })
    }
}

/// What follows one of these options in a process' command line, as a word or behind `=`.
fn option(process: &Path, names: &[&str]) -> Option<String> {
    let words = arguments(process)?;
    let value = |(at, word): (usize, &String)| match word.split_once('=') {
        Some((name, value)) if names.contains(&name) => Some(value.to_owned()),
        _ if names.contains(&word.as_str()) => words.get(at + 1).cloned(),
        _ => None,
    };
    words.iter().enumerate().find_map(value).filter(|value| !value.is_empty())
}

/// The arguments of a process, as far as they may be those of an engine's: a process can have any number, and
/// there can be any number of processes.
fn arguments(process: &Path) -> Option<Vec<String>> {
    const MOST: usize = 256;
    const LONGEST: usize = 4096;
    let mut text = Vec::new();
    let file = fs::File::open(process.join("cmdline")).ok()?;
    file.take((MOST * LONGEST) as u64).read_to_end(&mut text).ok()?;
    let words = text.split(|byte| *byte == 0).take(MOST);
    Some(words.map(|word| String::from_utf8_lossy(&word[..word.len().min(LONGEST)]).into_owned()).collect())
}

/// What the readers of arguments make of a process: the user of a monitor, and all texts.
#[cfg(test)]
pub(crate) fn texts_of(root: &Root, process: &Path) -> (Option<u32>, Vec<String>) {
    let (monitor, shim) = (Monitor::of(root, process), Shim::of(process));
    let user = monitor.as_ref().map(|monitor| monitor.user);
    let of_monitor =
        monitor.into_iter().flat_map(|monitor| [Some(monitor.id), Some(monitor.bundle), monitor.runtime]);
    let of_shim = shim.into_iter().flat_map(|shim| [shim.namespace, shim.id, shim.address]);
    (user, of_monitor.flatten().chain(of_shim).collect())
}

/// The processes that there are: their directories, and the names that the kernel has for them.
fn processes(root: &Root) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.path("/proc"))? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        // A process that ended meanwhile has nothing to say.
        let Ok(comm) = name(&entry.path()) else { continue };
        found.push((entry.path(), comm));
    }
    Ok(found)
}

/// The name that the kernel has for a process: 15 bytes at most, so one read has it.
fn name(process: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = [0; 64];
    let read = fs::File::open(process.join("comm"))?.read(&mut bytes)?;
    Ok(bytes[..read].trim_ascii_end().to_vec())
}

/// What a shim was started for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shim {
    namespace: String,
    id: String,
    /// The socket of its containerd.
    address: String,
}

impl Shim {
    fn of(process: &Path) -> Option<Self> {
        Some(Self {
            namespace: option(process, &["-namespace", "--namespace"])?,
            id: option(process, &["-id", "--id"]).unwrap_or_default(),
            address: option(process, &["-address", "--address"]).unwrap_or_else(|| CONTAINERD.to_owned()),
        })
    }
}

/// Whether a process is none of a machine in the machine: a Kubernetes in a container has a kubelet, a
/// runtime and sockets of its own, and the container is all that is seen of it here.
fn is_ours(root: &Root, process: &Path) -> bool {
    let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    namespace(process) == namespace(&root.path("/proc/1"))
}

/// The system's unit that a process runs in.
fn unit(process: &Path) -> Option<String> {
    unit_of(&fs::read_to_string(process.join("cgroup")).ok()?)
}

/// The shims of the Docker container `id`. There are two for a moment, while one starts the other.
pub(crate) fn shims(root: &Root, id: &str) -> io::Result<Vec<PathBuf>> {
    let is_shim = |(process, comm): &(PathBuf, Vec<u8>)| comm == SHIM && is_roots(process, comm);
    let shims = processes(root)?.into_iter().filter(is_shim).map(|(process, _)| process);
    let is_meant = |shim: Shim| shim.namespace == DOCKERS && shim.id == id;
    Ok(shims.filter(|process| Shim::of(process).is_some_and(is_meant)).collect())
}

/// The children of all of its threads; none where the kernel does not tell.
pub(crate) fn children(process: &Path) -> Option<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(process.join("task")).ok()?.flatten() {
        let pids = fs::read_to_string(thread.path().join("children")).ok()?;
        children.extend(pids.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
    }
    Some(children)
}

/// Also true where the kernel does not tell.
fn has_child(process: &Path) -> bool {
    children(process).is_none_or(|children| !children.is_empty())
}

#[cfg(test)]
#[path = "running_tests.rs"]
pub(crate) mod tests;
