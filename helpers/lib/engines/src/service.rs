//! Podman's API for the moment, where nobody offers it.
//!
//! Podman has no daemon, and `podman.socket` is off on many machines. Its API is then a child of
//! ours for as long as it is needed. What it starts inherits our namespaces and system call filter,
//! so a helper in a sandbox must not do this, and says so instead.

use std::fs;
use std::io::{self, ErrorKind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use step::Root;

use crate::Kind;
use crate::find::{self, Running};

const SOCKET: &str = "/run/nvidia-reload/podman.sock";

/// After so many idle seconds the child ends by itself: should this process be killed, nothing is
/// left behind for long. No request of ours follows another later than that.
const IDLE: &str = "--time=120";

/// How long the child may take until it listens.
const DEADLINE: Duration = Duration::from_secs(30);

/// Podman's API service, ended when dropped.
#[derive(Debug)]
pub struct Service(Child);

/// Sees to it that root's Podman can be asked: starts its API service if no socket takes a
/// connection. Does nothing where Podman is not installed, and, with `if_running`, where no
/// container of it runs.
///
/// # Errors
/// The service does not start, or must not be started from here.
pub fn offer_podman(root: &Root, if_running: bool) -> io::Result<Option<Service>> {
    let reachable = || find::sockets(Kind::Podman).iter().any(|socket| find::reach(root, socket).is_ok());
    if !root.is_system() || (if_running && !Running::look(root)?.podman()) {
        return Ok(None);
    }
    // After that look: whoever connects to a socket of systemd's starts the service behind it.
    if reachable() {
        return Ok(None);
    }
    if fs::read_link("/proc/self/ns/mnt")? != fs::read_link("/proc/1/ns/mnt")? {
        return Err(io::Error::other(
            "Podman's API is off and cannot be started from inside a sandbox: `systemctl start podman.socket`",
        ));
    }
    if let Some(directory) = std::path::Path::new(SOCKET).parent() {
        fs::create_dir_all(directory)?;
    }
    // Of a child before this one, that was killed.
    if let Err(error) = fs::remove_file(SOCKET)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let child = Command::new("podman")
        // It warns of every connection that ends.
        .args(["--log-level=error", "system", "service", IDLE, &format!("unix://{SOCKET}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let mut service = match child {
        Ok(child) => Service(child),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let deadline = Instant::now() + DEADLINE;
    while find::reach(root, SOCKET).is_err() {
        if let Some(status) = service.0.try_wait()? {
            return Err(io::Error::other(format!("`podman system service` ended with {status}")));
        }
        if Instant::now() >= deadline {
            let reason = format!("`podman system service` does not listen after {} s", DEADLINE.as_secs());
            return Err(io::Error::new(ErrorKind::TimedOut, reason));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(service))
}

impl Drop for Service {
    fn drop(&mut self) {
        // SIGTERM: it holds locks of containers that SIGKILL would leave behind. It is our child
        // and not yet waited for, so its pid is its own.
        if let Ok(pid) = i32::try_from(self.0.id())
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
        let _ = fs::remove_file(SOCKET);
    }
}
