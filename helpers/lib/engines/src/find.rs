// SPDX-License-Identifier: MIT
//! Which engines are there, without starting one.
//!
//! Both Docker and Podman have sockets that systemd listens on: who connects starts the daemon. A daemon
//! that runs nothing is not worth starting, so a look at the processes comes first:
//!
//! - Docker is asked when `dockerd` runs, or when a `containerd-shim` of Docker's namespace
//!   (`moby`) has a child: such a container outlived its daemon (live-restore, a killed dockerd).
//!   A shim without a child is what is left of a container that ended while the daemon went away.
//! - containerd is asked for pods when a `containerd-shim` of the kubelet's namespace (`k8s.io`) has a
//!   child, at the socket that the shim was given. CRI-O is asked when it or a `conmon` of it runs.
//! - Podman has no daemon, and each user may have one of their own. It is asked when a `conmon` of that
//!   user's runs: each container has one as long as it lives.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use step::Root;

use crate::running::Running;
use crate::{Engine, Kind, Presence};

/// How long an engine may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// The socket of Docker or of a Podman.
fn socket(kind: Kind, user: Option<u32>) -> String {
    match (kind, user) {
        (Kind::Podman, None) => "/run/podman/podman.sock".to_owned(),
        (Kind::Podman, Some(uid)) => format!("/run/user/{uid}/podman/podman.sock"),
        _ => "/run/docker.sock".to_owned(),
    }
}

/// Whether root's Podman takes a connection.
pub fn podman_listens(root: &Root) -> bool {
    reach(root, &socket(Kind::Podman, None)).is_ok()
}

/// Why there is nothing to ask an engine for; none if there may be.
fn nothing(kind: Kind, user: Option<u32>, running: &Running) -> Option<&'static str> {
    match kind {
        Kind::Docker if running.dockerd().is_none() && !running.has_dockers() => {
            Some("dockerd does not run, and no container of it does")
        }
        Kind::Podman if !running.podmans().contains(&user) => Some("no container of it runs"),
        _ => None,
    }
}

/// Finds the socket of Docker or of a Podman and says whether it takes a connection.
pub fn find(root: &Root, kind: Kind, user: Option<u32>, running: &Running) -> Engine {
    let socket = socket(kind, user);
    match nothing(kind, user, running) {
        Some(reason) => {
            Engine { kind, user, socket, presence: Presence::Absent { reason: reason.to_owned() } }
        }
        // That user's side has to be asked, as the user.
        None if user.is_some() => Engine { kind, user, socket, presence: Presence::Ready },
        None => listening(root, kind, user, socket),
    }
}

/// The engines that run pods.
pub(crate) fn of_pods(root: &Root, running: &Running) -> Vec<Engine> {
    let containerds = running.containerds().into_iter().map(|socket| (Kind::Containerd, socket));
    let crio = running.crio().map(|socket| (Kind::CriO, socket));
    containerds.chain(crio).map(|(kind, socket)| listening(root, kind, None, socket.to_owned())).collect()
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
    // Says "not found" of a path that is something else, too: nothing listens on it.
    if !fs::metadata(&path)?.file_type().is_socket() {
        return Err(io::ErrorKind::NotFound.into());
    }
    bounded::connect(&path, Instant::now() + CONNECT).map(drop)
}
