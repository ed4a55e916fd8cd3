// SPDX-License-Identifier: MIT
//! Calls into the kernel's module loader, each in a child that is watched.
//!
//! A module that is stuck in its init or exit function keeps its caller in the kernel for ever, and the step
//! must be able to say so and end.

#![allow(unsafe_code)]

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

/// How often a busy module is looked at again. The kernel does not report when a reference goes, so there is
/// nothing to wait on; a poller that opens the device over and over leaves gaps of this order.
pub(crate) const AGAIN: Duration = Duration::from_millis(2);

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It came back.
    Back(Result<(), Errno>),
    /// It did not, in time.
    Stuck(Stuck),
}

/// A call that has not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The child that is in the call.
    pub pid: i32,
    /// Where in the kernel it is, if that can be read.
    pub stack: String,
}

/// Does `call` in a child, until `until` at most.
pub(crate) fn in_child(until: Instant, call: impl FnOnce() -> Result<(), Errno>) -> Result<Ended> {
    let parent = getpid();
    // SAFETY: the helpers that load and unload are single-threaded, so the child finds no lock taken.
    match unsafe { fork() }.context("start a child")? {
        ForkResult::Child => {
            // A helper that is killed takes along a child that is not in the kernel: else that would unload
            // or load something while the undo is at work.
            let with_parent = set_pdeathsig(Signal::SIGKILL).is_ok() && getppid() == parent;
            let code = match with_parent {
                true => call().map_or_else(|errno| errno as i32, |()| 0),
                false => Errno::ECANCELED as i32,
            };
            // SAFETY: ends the child at once; nothing of the parent's is flushed twice.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => watch(child, until),
    }
}

fn watch(child: Pid, until: Instant) -> Result<Ended> {
    match bounded::end_of(child.as_raw(), until) {
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            let stack = fs::read_to_string(format!("/proc/{child}/stack")).unwrap_or_default();
            return Ok(Ended::Stuck(Stuck { pid: child.as_raw(), stack: stack.trim().to_owned() }));
        }
        ended => ended.context("wait for the child")?,
    }
    match waitpid(child, None).context("wait for the child")? {
        WaitStatus::Exited(_, 0) => Ok(Ended::Back(Ok(()))),
        WaitStatus::Exited(_, code) => Ok(Ended::Back(Err(Errno::from_raw(code)))),
        other => bail!("the child in the kernel's module loader ended oddly: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[test]
    fn what_came_back_and_what_did_not() {
        let late = || Instant::now() + Duration::from_secs(30);
        assert_eq!(in_child(late(), || Ok(())).expect("is watched"), Ended::Back(Ok(())));
        let refused = in_child(late(), || Err(Errno::ENODEV)).expect("is watched");
        assert_eq!(refused, Ended::Back(Err(Errno::ENODEV)));
        let stuck = in_child(soon(), || {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        });
        let Ended::Stuck(Stuck { pid, .. }) = stuck.expect("is watched") else { panic!("came back") };
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).expect("is still there");
    }
}
