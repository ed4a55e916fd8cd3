// SPDX-License-Identifier: MIT
//! The way into the machine: one ssh connection, and a channel of it for each
//! command. A handshake takes a second or two under emulation, a channel none.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::cache::Stage;
use crate::command::{shown, tie};
use crate::room::Room;

/// Relative, to the machine's folder: a socket's path may have 107 bytes, a
/// cache folder's any number.
const SOCKET: &str = "ssh";

/// A connection; closed when dropped.
pub struct Connection {
    master: Child,
    dir: PathBuf,
    tools: Room,
}

impl Connection {
    /// Connects to the machine behind `port`, keeping the socket in `dir`.
    pub fn open(dir: &Path, image: &Stage, tools: &Room, port: u16, within: Duration) -> Result<Self> {
        let until = Instant::now() + within;
        loop {
            match Connection::try_open(dir, image, tools, port, until) {
                Ok(connection) => return Ok(connection),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn try_open(dir: &Path, image: &Stage, tools: &Room, port: u16, until: Instant) -> Result<Self> {
        let _ = std::fs::remove_file(dir.join(SOCKET));
        let mut command = tools.command("ssh");
        command
            .current_dir(dir)
            .args(["-F", "none", "-M", "-N", "-S", SOCKET, "-p", &port.to_string()])
            .arg("-i")
            .arg(image.file("key"))
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", quoted(&image.file("known_hosts"))))
            .args(options([
                "HostKeyAlias=rig",
                "StrictHostKeyChecking=yes",
                "IdentitiesOnly=yes",
                "BatchMode=yes",
                "LogLevel=ERROR",
                "ConnectTimeout=30",
                // The guest may be busy, and it goes away only when we end it.
                "ServerAliveInterval=0",
                // Says that the connection stands.
                "PermitLocalCommand=yes",
                "LocalCommand=echo connected",
            ]))
            .arg("root@127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut master = tie(&mut command, Signal::SIGTERM).spawn().context("cannot run ssh")?;
        let stdout = master.stdout.take().context("ssh has no output")?;
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let connected = receiver.recv_timeout(left).is_ok_and(|line| line.trim() == "connected");
        let connection = Connection { master, dir: dir.to_owned(), tools: tools.clone() };
        if !connected {
            bail!("no ssh connection to the machine");
        }
        Ok(connection)
    }

    /// A command in the machine, to be run by the shell there; the caller sets
    /// where its input comes from and its output goes to.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.client();
        command.args(["-T", "rig", line]);
        tie(&mut command, Signal::SIGTERM);
        command
    }

    /// The same on a terminal of its own.
    pub fn terminal(&self, line: &str) -> Command {
        let mut command = self.client();
        command.args(["-tt", "rig", line]);
        tie(&mut command, Signal::SIGTERM);
        command
    }

    fn client(&self) -> Command {
        let mut command = self.tools.command("ssh");
        command
            .current_dir(&self.dir)
            .args(["-F", "none", "-S", SOCKET])
            // Where the connection is gone, no other is tried.
            .args(options(["ProxyCommand=false", "LogLevel=QUIET", "EscapeChar=none"]));
        command
    }

    /// Runs a command; its standard output, or an error with what it printed.
    pub fn output(&self, line: &str) -> Result<String> {
        let mut command = self.command(line);
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", shown(&command)))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("in the machine: {line}: {}\n{stdout}{stderr}", output.status);
        }
        Ok(stdout)
    }

    /// Sets the machine's clock, which stood still while it was frozen, and
    /// unpacks what tar makes of `arguments` at the machine's root.
    pub fn send(&self, arguments: &[OsString]) -> Result<()> {
        let (archive, mut tar) = pack(arguments)?;
        let mut receive = self.command(&receive()?);
        let output = receive.stdin(archive).output().context("cannot run ssh")?;
        let packed = tar.wait()?;
        if !output.status.success() {
            bail!(
                "cannot copy into the machine: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        if !packed.success() {
            bail!("cannot pack what goes into the machine: tar: {packed}");
        }
        Ok(())
    }
}

/// The other end of an archive of tar, and the tar that writes it.
pub fn pack(arguments: &[OsString]) -> Result<(ChildStdout, Child)> {
    let mut tar = Command::new("tar");
    tar.arg("-c").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut tar = tie(&mut tar, Signal::SIGTERM).spawn().context("cannot run tar")?;
    let archive = tar.stdout.take().context("tar has no output")?;
    Ok((archive, tar))
}

/// The command in the machine that takes an archive in.
pub fn receive() -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(format!("/usr/lib/rig/receive {:.3}", now.as_secs_f64()))
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The kernel closes its connection in an orderly way. (On SIGTERM ssh
        // may stay, when the signal comes just before it waits for input.)
        let _ = self.master.kill();
        let _ = self.master.wait();
    }
}

fn options<const N: usize>(options: [&str; N]) -> impl Iterator<Item = String> {
    options.into_iter().flat_map(|option| ["-o".to_owned(), option.to_owned()])
}

/// ssh splits the value of this option at spaces.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}
