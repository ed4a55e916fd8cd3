//! Unloading one module, in a child that is watched.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// How an unload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unloaded {
    /// The module is gone.
    Gone,
    /// Somebody used it the whole time; the kernel refused, and nothing has changed.
    Busy,
    /// The call has not come back: the module is stuck in its exit function.
    Stuck {
        /// The child that is in the call.
        pid: i32,
        /// Where in the kernel it is, if that can be read.
        stack: String,
    },
}

/// How often a busy module is asked for again. The kernel tells nobody when a reference goes, so
/// there is nothing to wait on; a poller that opens the device over and over leaves gaps of this
/// order.
const AGAIN: Duration = Duration::from_millis(2);

/// Unloads `name`, for at most `patience` while it is busy.
///
/// The call is made in a child: a module that is stuck in its exit function keeps its caller in the
/// kernel for ever, and the step must be able to say so and end. Never forced, never blocking.
///
/// # Errors
/// The kernel's errno, other than that it is busy.
pub fn unload(name: &str, patience: Duration) -> Result<Unloaded> {
    /// Time for the exit function itself, once the kernel let go of the module.
    const EXIT: Duration = Duration::from_secs(30);
    let c_name = std::ffi::CString::new(name).context("a module's name holds a zero byte")?;
    let until = Instant::now() + patience;
    // SAFETY: the helpers that unload are single-threaded, and the child makes system calls only.
    match unsafe { fork() }.context("start a child")? {
        ForkResult::Child => {
            let code = loop {
                match delete_module(&c_name, DeleteModuleFlags::O_NONBLOCK) {
                    Ok(()) => break 0,
                    Err(Errno::EAGAIN) if Instant::now() < until => std::thread::sleep(AGAIN),
                    Err(errno) => break errno as i32,
                }
            };
            // SAFETY: ends the child at once; nothing of the parent's is flushed twice.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => watch(name, child, until + EXIT),
    }
}

fn watch(name: &str, child: Pid, until: Instant) -> Result<Unloaded> {
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).context("wait for the child")? {
            WaitStatus::StillAlive if Instant::now() < until => std::thread::sleep(AGAIN),
            WaitStatus::StillAlive => {
                let stack = fs::read_to_string(format!("/proc/{child}/stack")).unwrap_or_default();
                return Ok(Unloaded::Stuck { pid: child.as_raw(), stack: stack.trim().to_owned() });
            }
            WaitStatus::Exited(_, 0) => return Ok(Unloaded::Gone),
            WaitStatus::Exited(_, code) if code == Errno::EAGAIN as i32 => return Ok(Unloaded::Busy),
            WaitStatus::Exited(_, code) => {
                return Err(Errno::from_raw(code)).with_context(|| format!("unload {name}"));
            }
            other => bail!("the child that unloads {name} ended oddly: {other:?}"),
        }
    }
}
