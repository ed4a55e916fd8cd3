// SPDX-License-Identifier: MIT
//! Waiting for processes to end, without looking at them over and over.

use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// However fast processes come and go, they are not looked for more often.
const PACE: Duration = Duration::from_secs(1);

/// A soft limit of descriptors is 1024 mostly; what is left out is met in a later round.
const MOST: usize = 512;

/// What to wait for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// All of these to end.
    pids: Vec<i32>,
    /// Or this time to pass.
    time: Duration,
}

impl Wait {
    pub(crate) fn new(pids: Vec<i32>, time: Duration) -> Self {
        Self { pids, time }
    }

    /// Waits, in a round that began at `began`.
    pub(crate) fn pass(&self, began: Instant) -> Result<()> {
        let until = Instant::now() + self.time;
        let mut left = Vec::new();
        for pid in self.pids.iter().take(MOST).filter_map(|pid| Pid::from_raw(*pid)) {
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(process) => left.push(process),
                Err(Errno::SRCH) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("watch process {}", pid.as_raw_nonzero()));
                }
            }
        }
        if self.pids.is_empty() {
            sleep(self.time);
        } else {
            while !left.is_empty() && wait_for_one(&mut left, until)? {}
        }
        sleep(PACE.saturating_sub(began.elapsed()));
        Ok(())
    }
}

/// Waits until one of the processes has ended, and takes it from the list; false when the time is over.
fn wait_for_one(left: &mut Vec<OwnedFd>, until: Instant) -> Result<bool> {
    let time = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(time).context("a time that is too long")?;
    let mut fds: Vec<PollFd<'_>> = left.iter().map(|process| PollFd::new(process, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&timeout)) {
        Ok(0) => return Ok(false),
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error).context("wait for processes to end"),
    }
    let mut ended = fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
    left.retain(|_| !ended.next().unwrap_or_default());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn all_have_to_end_or_the_time_has_to_pass() {
        let short = Duration::from_millis(200);
        let mut stays = Command::new("sleep").arg("60").spawn().expect("starts");
        let mut goes = Command::new("sleep").arg("0.05").spawn().expect("starts");
        let pids = vec![goes.id() as i32, stays.id() as i32];
        // The pace is no part of this.
        let began = Instant::now() - PACE;
        Wait::new(pids.clone(), short).pass(began).expect("waits");
        assert!(began.elapsed() >= PACE + short, "the one that stays was waited for");
        stays.kill().expect("is killed");
        let began = Instant::now() - PACE;
        Wait::new(pids, Duration::from_secs(60)).pass(began).expect("waits");
        assert!(began.elapsed() < PACE + Duration::from_secs(30), "both have ended");
        stays.wait().and_then(|_| goes.wait()).expect("ended");
    }

    #[test]
    fn processes_that_are_gone_are_not_looked_for_at_once() {
        let mut gone = Command::new("true").spawn().expect("starts");
        let pid = gone.id() as i32;
        gone.wait().expect("ends");
        let began = Instant::now();
        Wait::new(vec![pid], Duration::from_secs(60)).pass(began).expect("waits");
        assert!(began.elapsed() >= PACE && began.elapsed() < Duration::from_secs(30));
    }
}
