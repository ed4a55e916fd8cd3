// SPDX-License-Identifier: MIT
//! Opens devices the way it is told, says `ready PID` once it holds them, and
//! waits for a signal. The ways can be combined; each is one in which programs
//! out there come to hold a GPU.

#![allow(unsafe_code)]

mod ways;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, raise, signal, sigprocmask};
use nix::unistd::{ForkResult, fork};

/// Hold a device, the way it is told to
#[derive(Parser)]
#[command(disable_version_flag = true)]
pub struct Options {
    /// Devices to hold
    #[arg(required = true)]
    devices: Vec<PathBuf>,
    /// Open with O_NONBLOCK
    #[arg(long)]
    nonblock: bool,
    /// Open through a node of its own, under another name in /tmp
    #[arg(long)]
    mknod: bool,
    /// The same, and remove that node's name once it is open
    #[arg(long)]
    unlinked: bool,
    /// Open in a thread that has a file table of its own
    #[arg(long, conflicts_with_all = ["in_flight", "map", "fdstore", "forking", "children"])]
    thread: bool,
    /// Send the descriptor into a socket that nobody reads, and close it
    #[arg(long, conflicts_with_all = ["map", "fdstore"])]
    in_flight: bool,
    /// Open inside a user and mount namespace of its own
    #[arg(long)]
    userns: bool,
    /// Open inside this folder as root, through a node made there
    #[arg(long, value_name = "DIR")]
    chroot: Option<PathBuf>,
    /// Map some of it and close the descriptor (nvidia-uvm, and what else allows it)
    #[arg(long, conflicts_with = "fdstore")]
    map: bool,
    /// Ignore SIGTERM
    #[arg(long, conflicts_with = "forking")]
    ignore_term: bool,
    /// On SIGTERM leave a new holder behind, this many times
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "3")]
    forking: Option<u32>,
    /// Stop (SIGSTOP) once it holds them
    #[arg(long)]
    stopped: bool,
    /// Go by this name, in /proc/PID/comm and as its first argument
    #[arg(long)]
    name: Option<std::ffi::OsString>,
    /// Have this many children, which hold the same
    #[arg(long, value_name = "N", default_value_t = 0)]
    children: u32,
    /// Open /dev/null this many times as well
    #[arg(long, value_name = "N", default_value_t = 0)]
    fds: u64,
    /// Go to the background once it holds them
    #[arg(long)]
    fork: bool,
    /// Give the descriptor to systemd to keep (FDSTORE=1), and close it
    #[arg(long)]
    fdstore: bool,
}

fn main() -> ExitCode {
    match hold(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hold: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn hold(options: &Options) -> Result<()> {
    if let Some(name) = &options.name {
        ways::take_name(name)?;
    }
    prepare_for_term(options)?;
    let background = options.fork.then(ways::into_background).transpose()?;
    // To the end: what is opened here is held until the process dies.
    let _noise = ways::open_noise(options.fds)?;
    let held = ways::acquire(options)?;
    for _ in 0..options.children {
        // SAFETY: no thread was started (--thread excludes --children).
        if let ForkResult::Child = unsafe { fork() }.context("cannot fork")? {
            if background.is_some() {
                ways::leave_streams()?;
            }
            wait_for_signals(options)?;
        }
    }
    report_ready(options)?;
    if let Some(parent) = background {
        parent.release()?;
    }
    if options.stopped {
        raise(Signal::SIGSTOP).context("cannot stop")?;
    }
    wait_for_signals(options)?;
    drop(held);
    Ok(())
}

/// Before anybody can know that the process is there.
fn prepare_for_term(options: &Options) -> Result<()> {
    if options.ignore_term {
        // SAFETY: no handler is installed.
        unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.context("cannot ignore SIGTERM")?;
    }
    if options.forking.is_some() {
        let term = SigSet::from(Signal::SIGTERM);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&term), None).context("cannot block SIGTERM")?;
    }
    Ok(())
}

fn report_ready(options: &Options) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready {}", std::process::id()).context("cannot write to standard output")?;
    stdout.flush().context("cannot write to standard output")?;
    if !options.fdstore && std::env::var_os("NOTIFY_SOCKET").is_some() {
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).context("cannot notify systemd")?;
    }
    Ok(())
}

/// Waits until a signal ends the process.
fn wait_for_signals(options: &Options) -> Result<()> {
    let Some(mut heirs) = options.forking else {
        loop {
            nix::unistd::pause();
        }
    };
    let term = SigSet::from(Signal::SIGTERM);
    loop {
        term.wait().context("cannot wait for SIGTERM")?;
        if heirs == 0 {
            return Ok(());
        }
        heirs -= 1;
        // SAFETY: no thread was started (--thread excludes --forking).
        if let ForkResult::Parent { .. } = unsafe { fork() }.context("cannot fork")? {
            return Ok(());
        }
    }
}

/// What keeps the devices held.
pub enum Held {
    /// Descriptors: of the devices, or of the socket they are in.
    Fds(Vec<OwnedFd>),
    /// Mappings, a thread, or systemd: nothing to keep here.
    Elsewhere,
}
