//! Which engines are there, without starting one.
//!
//! Both engines have sockets that systemd listens on: who connects starts the daemon. A daemon
//! that runs nothing is not worth starting, so a look at the processes comes first:
//!
//! - Docker is asked when `dockerd` runs, or when a `containerd-shim` of Docker's namespace
//!   (`moby`) has a child: such a container outlived its daemon (live-restore, a killed dockerd).
//!   A shim without a child is what is left of a container that ended while the daemon went away.
//! - Podman has no daemon. It is asked when a `conmon` of root's runs: each container has one as
//!   long as it lives.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use step::Root;

use crate::{Engine, Kind, Presence};

/// The sockets on which an engine may answer, the usual one first.
///
/// The last one of Podman is where [`crate::offer_podman`] lets it listen.
pub fn sockets(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Docker => &["/run/docker.sock"],
        Kind::Podman => &["/run/podman/podman.sock", "/run/nvidia-reload/podman.sock"],
    }
}

/// The processes of engines, as far as they decide whether to ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Running {
    dockerd: bool,
    shim: bool,
    conmon: bool,
}

impl Running {
    /// Looks through `/proc`.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn look(root: &Root) -> io::Result<Self> {
        let mut running = Self::default();
        for entry in fs::read_dir(root.path("/proc"))? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(|first: char| first.is_ascii_digit()) {
                continue;
            }
            // A process that ended meanwhile has nothing to say.
            let mut comm = [0; 16];
            let read = fs::File::open(entry.path().join("comm")).and_then(|mut file| file.read(&mut comm));
            let Ok(length) = read else { continue };
            match comm[..length].trim_ascii_end() {
                b"dockerd" => running.dockerd = true,
                // The kernel keeps 15 bytes of containerd-shim-runc-v2.
                b"containerd-shim" => {
                    running.shim |= is_dockers_shim(&entry.path()) && has_child(&entry.path());
                }
                // A user's own Podman is another engine.
                b"conmon" => running.conmon |= entry.metadata().is_ok_and(|meta| meta.uid() == 0),
                _ => {}
            }
        }
        Ok(running)
    }

    /// Whether a container of root's Podman does.
    pub fn podman(self) -> bool {
        self.conmon
    }

    /// Why there is nothing to ask an engine for; none if there may be.
    fn nothing(self, kind: Kind) -> Option<&'static str> {
        match kind {
            Kind::Docker if !self.dockerd && !self.shim => {
                Some("dockerd does not run, and no container of it does")
            }
            Kind::Podman if !self.conmon => Some("no container of root's Podman runs"),
            _ => None,
        }
    }
}

fn is_dockers_shim(process: &Path) -> bool {
    let Ok(text) = fs::read(process.join("cmdline")) else { return false };
    let mut arguments = text.split(|byte| *byte == 0);
    arguments.any(|argument| argument == b"-namespace") && arguments.next() == Some(b"moby")
}

/// Whether any of its threads has a child; also true where the kernel does not tell.
fn has_child(process: &Path) -> bool {
    let Ok(threads) = fs::read_dir(process.join("task")) else { return false };
    threads
        .flatten()
        .any(|thread| fs::read(thread.path().join("children")).map_or(true, |pids| !pids.is_empty()))
}

/// Finds the engine's socket and says whether it takes a connection.
pub fn find(root: &Root, kind: Kind, running: Running) -> Engine {
    let usual = sockets(kind)[0];
    let engine = |socket: &str, presence| Engine { kind, socket: socket.to_owned(), presence };
    if let Some(reason) = running.nothing(kind) {
        return engine(usual, Presence::Absent { reason: reason.to_owned() });
    }
    let mut refused = None;
    for socket in sockets(kind) {
        match reach(root, socket) {
            Ok(()) => return engine(socket, Presence::Ready),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                refused.get_or_insert(engine(
                    socket,
                    Presence::Unreachable {
                        errno: error.raw_os_error(),
                        reason: format!("connect to {socket}: {error}"),
                    },
                ));
            }
        }
    }
    // Something of it runs, and nothing listens: that is no absence.
    refused.unwrap_or_else(|| {
        let reason =
            format!("containers of {kind} may run, but there is no {}", sockets(kind).join(" and no "));
        engine(usual, Presence::Unreachable { errno: None, reason })
    })
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
    UnixStream::connect(path).map(drop)
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
    }

    fn docker(root: &Root) -> Presence {
        find(root, Kind::Docker, Running::look(root).expect("looks")).presence
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
    fn podman_is_asked_on_the_socket_that_listens() {
        let (_directory, root) = tree();
        let find = || find(&root, Kind::Podman, Running { conmon: true, ..Running::default() });
        fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        let _ours = UnixListener::bind(root.path("/run/nvidia-reload/podman.sock")).expect("binds");
        assert_eq!(
            (find().socket.as_str(), find().presence),
            ("/run/nvidia-reload/podman.sock", Presence::Ready)
        );
        let _usual = UnixListener::bind(root.path("/run/podman/podman.sock")).expect("binds");
        assert_eq!(find().socket, "/run/podman/podman.sock");
        let idle = Running::default().nothing(Kind::Podman);
        assert_eq!(idle, Some("no container of root's Podman runs"));
    }
}
