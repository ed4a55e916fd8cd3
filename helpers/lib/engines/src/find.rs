//! Which engines are there, without starting one.
//!
//! Both engines have sockets that systemd listens on: who connects starts the daemon. A daemon
//! that runs nothing is not worth starting, so a look at the processes comes first:
//!
//! - Docker is asked when `dockerd` runs, or when a `containerd-shim` of Docker's namespace
//!   (`moby`) has a child: such a container outlived its daemon (live-restore, a killed dockerd).
//!   A shim without a child is what is left of a container that ended while the daemon went away.
//! - containerd is asked for pods when a `containerd-shim` of the kubelet's namespace (`k8s.io`) has a
//!   child, at the socket that the shim was given.
//! - Podman has no daemon, and each user may have one of his own. It is asked when a `conmon` of that
//!   user's runs: each container has one as long as it lives.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use step::Root;

use crate::ids::{Ids, is_roots};
use crate::owner::unit_of;
use crate::{Engine, Kind, Presence};

/// What the kernel keeps of `containerd-shim-runc-v2`.
const SHIM: &[u8] = b"containerd-shim";

/// How long an engine may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// The socket on which an engine answers.
fn socket(kind: Kind, user: Option<u32>) -> String {
    match (kind, user) {
        (Kind::Docker, _) => "/run/docker.sock".to_owned(),
        (Kind::Podman, None) => "/run/podman/podman.sock".to_owned(),
        (Kind::Podman, Some(uid)) => format!("/run/user/{uid}/podman/podman.sock"),
        (Kind::Containerd, _) => "/run/containerd/containerd.sock".to_owned(),
    }
}

/// Whether root's Podman takes a connection.
pub fn podman_listens(root: &Root) -> bool {
    reach(root, &socket(Kind::Podman, None)).is_ok()
}

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
    shim: bool,
    /// Of each container of Podman's: the user, the id, the directory of its bundle.
    monitors: Vec<(u32, String, String)>,
    /// The sockets of the containerds that run pods.
    pods: BTreeSet<String>,
    /// The units that kubelets run in, and those that containerds do.
    kubelets: BTreeSet<String>,
    runtimes: BTreeSet<String>,
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
                b"conmon" => running.monitors.extend(monitor(&process)),
                // A name is anybody's to take. Whose a process is takes longer to read than its name.
                b"dockerd" | SHIM | b"kubelet" | b"containerd" if !is_roots(&process, &comm) => {}
                b"dockerd" if is_ours(root, &process) => {
                    running.dockerd = Daemon::of(&process).max(running.dockerd.take())
                }
                SHIM => running.note_shim(root, &process),
                b"kubelet" if is_ours(root, &process) => running.kubelets.extend(unit(&process)),
                b"containerd" if is_ours(root, &process) => running.runtimes.extend(unit(&process)),
                _ => {}
            }
        }
        Ok(running)
    }

    fn note_shim(&mut self, root: &Root, process: &Path) {
        match Shim::of(process) {
            Some(shim) if shim.namespace == "moby" => self.shim |= has_child(process),
            Some(shim) if shim.namespace == "k8s.io" && is_ours(root, process) && has_child(process) => {
                self.pods.insert(shim.address);
            }
            _ => {}
        }
    }

    /// The containerds that run pods.
    pub(crate) fn containerds(&self, root: &Root) -> Vec<Engine> {
        self.pods.iter().map(|socket| listening(root, Kind::Containerd, None, socket.clone())).collect()
    }

    /// The `dockerd` of this machine: the one that started last, where there are several.
    pub fn dockerd(&self) -> Option<&Daemon> {
        self.dockerd.as_ref()
    }

    /// The unit that runs the kubelet; none where a stop of it would stop the runtime as well (k3s, rke2).
    pub(crate) fn kubelet(&self) -> Option<&str> {
        let mut units = self.kubelets.iter().map(String::as_str);
        units.next().filter(|unit| units.next().is_none() && !self.runtimes.contains(*unit))
    }

    /// The Podmans that run a container: root's is none, a user's own goes by the user id.
    pub fn podmans(&self) -> BTreeSet<Option<u32>> {
        self.monitors.iter().map(|(uid, ..)| (*uid != 0).then_some(*uid)).collect()
    }

    /// The directory of the bundle of a container of a user's Podman.
    pub(crate) fn bundle(&self, uid: u32, id: &str) -> Option<&str> {
        let is_meant = |(whose, its, _): &&(u32, String, String)| *whose == uid && its == id;
        self.monitors.iter().find(is_meant).map(|(.., directory)| directory.as_str())
    }

    /// Why there is nothing to ask an engine for; none if there may be.
    fn nothing(&self, kind: Kind, user: Option<u32>) -> Option<&'static str> {
        match kind {
            Kind::Docker if self.dockerd.is_none() && !self.shim => {
                Some("dockerd does not run, and no container of it does")
            }
            Kind::Podman if !self.podmans().contains(&user) => Some("no container of it runs"),
            _ => None,
        }
    }
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
struct Shim {
    namespace: String,
    id: String,
    /// The socket of its containerd.
    address: String,
}

impl Shim {
    fn of(process: &Path) -> Option<Self> {
        let arguments = arguments(process)?;
        let after = |name| arguments.iter().skip_while(|word| *word != name).nth(1).cloned();
        Some(Self {
            namespace: after("-namespace")?,
            id: after("-id").unwrap_or_default(),
            address: after("-address").unwrap_or_else(|| socket(Kind::Containerd, None)),
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
    let is_meant = |shim: Shim| shim.namespace == "moby" && shim.id == id;
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

/// The user, id and bundle of the container that this conmon looks after.
fn monitor(process: &Path) -> Option<(u32, String, String)> {
    let uid = Ids::of(process)?.user;
    let arguments = arguments(process)?;
    let after = |names: [&str; 2]| {
        let at = arguments.iter().position(|word| names.contains(&word.as_str()))?;
        arguments.get(at + 1).cloned()
    };
    Some((uid, after(["-c", "--cid"])?, after(["-b", "--bundle"])?))
}

/// The arguments of a process, as far as they may be those of an engine's: a process can have any number, and
/// there can be any number of processes.
fn arguments(process: &Path) -> Option<Vec<String>> {
    const MOST: usize = 256;
    const LONGEST: usize = 4096;
    let mut text = Vec::new();
    fs::File::open(process.join("cmdline"))
        .ok()?
        .take((MOST * LONGEST) as u64)
        .read_to_end(&mut text)
        .ok()?;
    let words = text.split(|byte| *byte == 0).take(MOST);
    Some(words.map(|word| String::from_utf8_lossy(&word[..word.len().min(LONGEST)]).into_owned()).collect())
}

/// What the two readers of arguments make of a process.
#[cfg(test)]
#[allow(clippy::type_complexity)]
pub(crate) fn monitor_and_shim(process: &Path) -> (Option<(u32, String, String)>, Option<[String; 3]>) {
    (monitor(process), Shim::of(process).map(|shim| [shim.namespace, shim.id, shim.address]))
}

/// Finds the engine's socket and says whether it takes a connection.
pub fn find(root: &Root, kind: Kind, user: Option<u32>, running: &Running) -> Engine {
    let socket = socket(kind, user);
    match running.nothing(kind, user) {
        Some(reason) => {
            Engine { kind, user, socket, presence: Presence::Absent { reason: reason.to_owned() } }
        }
        // That user's side has to be asked, as the user.
        None if user.is_some() => Engine { kind, user, socket, presence: Presence::Ready },
        None => listening(root, kind, user, socket),
    }
}

/// An engine of which something runs: where nothing listens, that is no absence.
fn listening(root: &Root, kind: Kind, user: Option<u32>, socket: String) -> Engine {
    let presence = match reach(root, &socket) {
        Ok(()) => Presence::Ready,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Presence::Unreachable {
            errno: None,
            reason: format!("containers of it may run, but there is no {socket}"),
        },
        Err(error) => Presence::Unreachable {
            errno: error.raw_os_error(),
            reason: format!("connect to {socket}: {error}"),
        },
    };
    Engine { kind, user, socket, presence }
}

/// Connects and hangs up.
///
/// # Errors
/// The kernel's.
pub fn reach(root: &Root, socket: &str) -> io::Result<()> {
    let path = root.path(socket);
    // Says "not found" of a path that is something else, too: nobody listens on it.
    if !fs::metadata(&path)?.file_type().is_socket() {
        return Err(io::ErrorKind::NotFound.into());
    }
    bounded::connect(&path, Instant::now() + CONNECT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn tree() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for path in ["/proc", "/run/podman"] {
            fs::create_dir_all(root.path(path)).expect("creates");
        }
        (directory, root)
    }

    fn process(root: &Root, pid: u32, comm: &str, cmdline: &[u8]) {
        let directory = root.path(format!("/proc/{pid}"));
        fs::create_dir_all(directory.join("task/1")).expect("creates");
        fs::write(directory.join("task/1/children"), "").expect("writes");
        fs::write(directory.join("comm"), format!("{comm}\n")).expect("writes");
        fs::write(directory.join("cmdline"), cmdline).expect("writes");
        of_user(root, pid, 0);
        let program = String::from_utf8_lossy(cmdline.split(|byte| *byte == 0).next().unwrap_or_default());
        runs(root, pid, &program);
    }

    fn of_user(root: &Root, pid: u32, uid: u32) {
        let status = format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
        fs::write(root.path(format!("/proc/{pid}/status")), status).expect("writes");
    }

    fn runs(root: &Root, pid: u32, program: &str) {
        let exe = root.path(format!("/proc/{pid}/exe"));
        let _ = fs::remove_file(&exe);
        std::os::unix::fs::symlink(program, exe).expect("links");
    }

    #[test]
    fn what_a_user_calls_a_process_is_nothing() {
        let (_directory, root) = tree();
        let shim = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-id\0p\0-address\0/run/c.sock\0";
        let moby = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-id\0d\0";
        let all: [(u32, &str, &[u8]); 4] = [
            (7, "containerd-shim", shim),
            (8, "containerd-shim", moby),
            (9, "kubelet", b"/usr/bin/kubelet\0"),
            (10, "dockerd", b"/usr/bin/dockerd\0"),
        ];
        for (pid, comm, cmdline) in all {
            process(&root, pid, comm, cmdline);
            fs::write(root.path(format!("/proc/{pid}/task/1/children")), "11 ").expect("writes");
            let cgroup = "0::/system.slice/kubelet.service\n";
            fs::write(root.path(format!("/proc/{pid}/cgroup")), cgroup).expect("writes");
        }
        let seen = || {
            let running = Running::look(&root).expect("looks");
            let kubelet = running.kubelet().map(str::to_owned);
            (running.dockerd.is_some(), running.shim, running.pods.len(), kubelet)
        };
        assert_eq!(seen(), (true, true, 1, Some("kubelet.service".to_owned())));
        assert_eq!(shims(&root, "d").expect("looks").len(), 1);
        let nothing = (false, false, 0, None);
        for (pid, ..) in all {
            of_user(&root, pid, 1000);
        }
        assert_eq!(seen(), nothing);
        assert!(shims(&root, "d").expect("looks").is_empty());
        for (pid, ..) in all {
            // A set-uid program by a link of that name.
            let status = "Uid:\t1000\t0\t0\t0\n";
            fs::write(root.path(format!("/proc/{pid}/status")), status).expect("writes");
        }
        assert_eq!(seen(), nothing);
        for (pid, ..) in all {
            of_user(&root, pid, 0);
            runs(&root, pid, "/bin/sh");
        }
        assert_eq!(seen(), nothing, "a script of root's");
    }

    fn docker(root: &Root) -> Presence {
        find(root, Kind::Docker, None, &Running::look(root).expect("looks")).presence
    }

    #[test]
    fn a_listening_socket_alone_starts_no_daemon() {
        let (_directory, root) = tree();
        let _listener = UnixListener::bind(root.path("/run/docker.sock")).expect("binds");
        assert!(matches!(docker(&root), Presence::Absent { .. }));
        process(&root, 7, "containerd-shim", b"/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0");
        assert!(matches!(docker(&root), Presence::Absent { .. }), "another's shim");
        process(&root, 8, "containerd-shim", b"/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-id\0x\0");
        assert!(matches!(docker(&root), Presence::Absent { .. }), "its container has ended");
        fs::write(root.path("/proc/8/task/1/children"), "9 ").expect("writes");
        assert_eq!(docker(&root), Presence::Ready);
    }

    #[test]
    fn pods_are_asked_for_where_their_shims_say() {
        let (_directory, root) = tree();
        process(
            &root,
            7,
            "containerd-shim",
            b"/containerd-shim-x\0-namespace\0k8s.io\0-id\0p\0-address\0/run/c.sock\0",
        );
        assert_eq!(Running::look(&root).expect("looks").containerds(&root), [], "no container of it runs");
        fs::write(root.path("/proc/7/task/1/children"), "9 ").expect("writes");
        process(&root, 8, "kubelet", b"/usr/bin/kubelet\0");
        fs::write(root.path("/proc/8/cgroup"), "0::/system.slice/kubelet.service\n").expect("writes");
        let running = Running::look(&root).expect("looks");
        let engines = running.containerds(&root);
        assert_eq!((engines[0].kind, engines[0].socket.as_str()), (Kind::Containerd, "/run/c.sock"));
        assert!(matches!(engines[0].presence, Presence::Unreachable { .. }), "{engines:?}");
        assert_eq!(running.kubelet(), Some("kubelet.service"));

        // rke2 runs both in one unit.
        process(&root, 10, "containerd", b"containerd\0");
        fs::write(root.path("/proc/10/cgroup"), "0::/system.slice/kubelet.service\n").expect("writes");
        assert_eq!(Running::look(&root).expect("looks").kubelet(), None);
    }

    #[test]
    fn a_kubernetes_in_a_container_is_that_containers() {
        let (_directory, root) = tree();
        process(
            &root,
            7,
            "containerd-shim",
            b"/containerd-shim-x\0-namespace\0k8s.io\0-id\0p\0-address\0/run/c.sock\0",
        );
        fs::write(root.path("/proc/7/task/1/children"), "9 ").expect("writes");
        process(&root, 8, "kubelet", b"/usr/bin/kubelet\0");
        let cgroup = "0::/system.slice/docker-0a.scope/kubelet.slice/kubelet.service\n";
        fs::write(root.path("/proc/8/cgroup"), cgroup).expect("writes");
        for (pid, namespace) in [(1, "pid:[1]"), (7, "pid:[2]"), (8, "pid:[2]")] {
            let directory = root.path(format!("/proc/{pid}/ns"));
            fs::create_dir_all(&directory).expect("creates");
            std::os::unix::fs::symlink(namespace, directory.join("pid")).expect("links");
        }
        let running = Running::look(&root).expect("looks");
        assert_eq!((running.containerds(&root).len(), running.kubelet()), (0, None));
    }

    #[test]
    fn a_refusal_is_typed() {
        let (_directory, root) = tree();
        process(&root, 7, "dockerd", b"/usr/sbin/dockerd\0");
        assert!(matches!(docker(&root), Presence::Unreachable { errno: None, .. }));
        drop(UnixListener::bind(root.path("/run/docker.sock")).expect("binds"));
        let Presence::Unreachable { errno, reason } = docker(&root) else { panic!("nobody listens") };
        assert_eq!(errno, Some(111), "{reason}");
        assert!(reason.contains("/run/docker.sock"), "{reason}");
    }

    #[test]
    fn each_users_podman_is_another_engine() {
        let (_directory, root) = tree();
        process(&root, 9, "conmon", b"/usr/bin/conmon\0--api-version\x001\0-c\0beef\0-b\0/srv/beef\0");
        let podmans = || Running::look(&root).expect("looks").podmans();
        assert_eq!(podmans(), BTreeSet::from([None]));
        of_user(&root, 9, 1000);
        assert_eq!(podmans(), BTreeSet::from([Some(1000)]));
        let running = Running::look(&root).expect("looks");
        assert_eq!((running.bundle(1000, "beef"), running.bundle(1001, "beef")), (Some("/srv/beef"), None));
        let find = |user| find(&root, Kind::Podman, user, &running);
        assert!(matches!(find(None).presence, Presence::Absent { .. }));
        // Nothing of a user's is opened here: whether it answers is that user's side to say.
        assert_eq!(find(Some(1000)).presence, Presence::Ready);
        assert_eq!(find(Some(1000)).to_string(), "Podman of user 1000");
        let _listener = UnixListener::bind(root.path("/run/podman/podman.sock")).expect("binds");
        assert!(podman_listens(&root));
    }
}
