// SPDX-License-Identifier: MIT
//! Calls into the kernel's module loader and into the driver, each in a child that is watched.
//!
//! A module that is stuck in its init or exit function keeps its caller in the kernel for ever, and the step
//! must be able to say so and end. So does a driver that is stuck with a GPU, where that GPU's files are read.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, read, write};

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
    // SAFETY: the helpers that load and unload are single-threaded, so the child finds no lock taken; what else
    // `call` is makes system calls only.
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

/// The text of a file of the driver's, of 4 KiB at most, or why it cannot be read.
pub(crate) fn read_in_child(path: &Path, until: Instant) -> Result<Result<String, NotRead>> {
    let name = CString::new(path.as_os_str().as_bytes()).context("a path holds a zero byte")?;
    let (mut reader, writer) = std::io::pipe().context("make a pipe")?;
    // System calls only: the caller may have threads.
    let ended = in_child(until, || {
        let file = open(name.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut text = [0; 4096];
        let length = read(&file, &mut text)?;
        write(&writer, &text[..length]).map(drop)
    })?;
    drop(writer);
    Ok(match ended {
        Ended::Back(Ok(())) => {
            let mut text = String::new();
            reader.read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
            Ok(text)
        }
        Ended::Back(Err(errno)) => Err(NotRead::Failed(errno)),
        Ended::Stuck(_) => Err(NotRead::Stuck),
    })
}

/// Why a file could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// The kernel's answer.
    Failed(Errno),
    /// There was none in time.
    Stuck,
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
        other => bail!("the child in the kernel's module loader or the driver ended oddly: {other:?}"),
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

    #[test]
    fn a_file_is_read_and_one_that_does_not_answer_is_left() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let late = || Instant::now() + Duration::from_secs(30);
        let path = directory.path().join("file");
        assert_eq!(read_in_child(&path, late()).expect("is watched"), Err(NotRead::Failed(Errno::ENOENT)));
        fs::write(&path, "Status:    offline\n").expect("writes");
        assert_eq!(read_in_child(&path, late()).expect("is watched").as_deref(), Ok("Status:    offline\n"));
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("makes a pipe");
        // It has no writer: the open does not return.
        assert_eq!(read_in_child(&pipe, soon()).expect("is watched"), Err(NotRead::Stuck));
        // The child ends.
        fs::write(&pipe, "").expect("opens the other end");
    }
}
