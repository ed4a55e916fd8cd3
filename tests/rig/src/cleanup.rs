// SPDX-License-Identifier: MIT
//! What must not stay behind when the rig gets a signal to end: the machine, and the
//! folder of this run. (When it is killed outright, the kernel ends the
//! machine, and the next rig removes the folder.)

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// From now on SIGINT, SIGTERM and SIGHUP end the rig tidily, with the usual
/// exit status of 128 and the signal's number.
pub fn on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end(128 + signal);
        }
    });
    Ok(())
}

/// Ends the machine and the rig.
pub fn end(status: i32) -> ! {
    // Held to the end: no other machine is started now.
    let children = children();
    for &pid in children.iter() {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    remove_folder();
    std::process::exit(status);
}

/// A process to be killed.
pub fn watch(pid: u32) {
    children().push(pid);
}

/// The process has ended.
pub fn forget(pid: u32) {
    children().retain(|&child| child != pid);
}

/// The folder to be removed at the end.
pub fn folder(path: PathBuf) {
    let _ = FOLDER.set(path);
}

/// Removes it.
pub fn remove_folder() {
    if let Some(folder) = FOLDER.get() {
        let _ = std::fs::remove_dir_all(folder);
    }
}

fn children() -> MutexGuard<'static, Vec<u32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}
