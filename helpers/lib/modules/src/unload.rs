// SPDX-License-Identifier: MIT
//! Unloading one module.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};

use crate::watched::{AGAIN, Ended, Stuck, in_child};

/// How an unload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unloaded {
    /// The module is gone.
    Gone,
    /// It was in use the whole time; the kernel refused, and nothing has changed.
    Busy,
    /// The module is stuck in its exit function: only a reboot helps.
    Stuck(Stuck),
}

/// Unloads `name`, for at most `patience` while it is busy. Never forced, never blocking.
///
/// # Errors
/// The kernel's errno, other than that it is busy.
pub fn unload(name: &str, patience: Duration) -> Result<Unloaded> {
    /// Time for the exit function itself, once the kernel let go of the module.
    const EXIT: Duration = Duration::from_secs(30);
    let c_name = std::ffi::CString::new(name).context("a module's name holds a zero byte")?;
    let until = Instant::now() + patience;
    let ended = in_child(until + EXIT, || {
        loop {
            match delete_module(&c_name, DeleteModuleFlags::O_NONBLOCK) {
                Err(Errno::EAGAIN) if Instant::now() < until => std::thread::sleep(AGAIN),
                result => break result,
            }
        }
    })?;
    match ended {
        Ended::Back(result) => outcome(result).with_context(|| format!("unload {name}")),
        Ended::Stuck(stuck) => Ok(Unloaded::Stuck(stuck)),
    }
}

fn outcome(result: nix::Result<()>) -> nix::Result<Unloaded> {
    match result {
        // ENOENT: it was unloaded meanwhile.
        Ok(()) | Err(Errno::ENOENT) => Ok(Unloaded::Gone),
        // EWOULDBLOCK: it is in use.
        Err(Errno::EAGAIN) => Ok(Unloaded::Busy),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_went_meanwhile_is_gone() {
        for (result, expected) in [
            (Ok(()), Ok(Unloaded::Gone)),
            (Err(Errno::ENOENT), Ok(Unloaded::Gone)),
            (Err(Errno::EAGAIN), Ok(Unloaded::Busy)),
            (Err(Errno::EPERM), Err(Errno::EPERM)),
            (Err(Errno::EBUSY), Err(Errno::EBUSY)),
        ] {
            assert_eq!(outcome(result), expected, "{result:?}");
        }
    }
}
