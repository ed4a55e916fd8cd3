// SPDX-License-Identifier: MIT
//! What is left of a start that the death of dockerd cut off.
//!
//! dockerd notes that a container runs when containerd has started it. Killed in between, it takes the
//! container for stopped when it is back, and its first process runs on. As long as that lives, Docker
//! before 23 refuses every start (seen with 20.10); later ones end it themselves.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use step::Root;
use tokio::time::{Instant, sleep};

use crate::{Client, Error, Kind, Phase, running};

/// How long a process may take to end after SIGKILL.
const DEADLINE: Duration = Duration::from_secs(10);

/// Ends what runs of the container `id` although its engine says that it is down. Whether there was
/// anything.
///
/// # Errors
/// The engine does not answer, `/proc` cannot be read, or a process does not end.
pub async fn end_cut_off(root: &Root, client: &Client, id: &str) -> Result<bool, Error> {
    if client.kind() != Kind::Docker || client.inspect(id).await?.phase() != Phase::Down {
        return Ok(false);
    }
    let odd = |error: io::Error| Error::Odd(format!("its remaining processes cannot be killed: {error}"));
    let left = firsts(root, id).map_err(odd)?;
    for process in &left {
        match pidfd_send_signal(process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(odd(error.into())),
        }
    }
    let until = Instant::now() + DEADLINE;
    for process in &left {
        while !has_ended(process).map_err(odd)? {
            if Instant::now() >= until {
                return Err(Error::Odd(format!(
                    "its remaining processes did not exit within {} s",
                    DEADLINE.as_secs()
                )));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(!left.is_empty())
}

/// The first processes of the container: the children of its shim.
fn firsts(root: &Root, id: &str) -> io::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for shim in running::shims(root, id)? {
        for pid in running::children(&shim).unwrap_or_default() {
            let process = match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(process) => process,
                Err(Errno::SRCH) => continue,
                Err(error) => return Err(error.into()),
            };
            // In this order: what the descriptor stands for cannot change any more.
            if running::children(&shim).is_some_and(|children| children.contains(&pid)) {
                found.push(process);
            }
        }
    }
    Ok(found)
}

/// A pidfd is readable when its process has ended.
fn has_ended(process: &OwnedFd) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&now))? > 0)
}
