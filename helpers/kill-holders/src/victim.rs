// SPDX-License-Identifier: MIT
//! One process to be ended, held by a descriptor, so that the signal cannot reach another.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use holders::{Holder, Stat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use step::Root;

/// A process that was found holding the GPU and was alive when this was made.
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) holder: Holder,
    pidfd: OwnedFd,
}

impl Victim {
    /// Takes hold of the process that `holder` describes; none if it has ended, also when its pid
    /// is another's by now.
    pub(crate) fn take(root: &Root, holder: Holder) -> Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(holder.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("take hold of process {}", holder.pid)),
        };
        // In this order: what the descriptor stands for cannot change any more, and if it is not
        // the process that was found, then that one is gone and its start with it.
        let same = stat(root, holder.pid).is_some_and(|stat| stat.start_ticks == holder.start_ticks);
        Ok(same.then_some(Self { holder, pidfd }))
    }

    /// Sends a signal; false if the process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<bool> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("signal {}", self.name())),
        }
    }

    /// Asks it to end. A stopped process would hear of it only when somebody let it go on.
    pub(crate) fn ask(&self) -> Result<bool> {
        Ok(self.signal(Signal::TERM)? && self.signal(Signal::CONT)?)
    }

    /// For messages: pid, user and command line.
    pub(crate) fn name(&self) -> String {
        name(&self.holder)
    }

    /// What keeps it alive after SIGKILL: the tasks in uninterruptible sleep and where in the
    /// kernel they sleep.
    pub(crate) fn what_keeps_it(&self, root: &Root) -> String {
        let tasks = root.path(format!("/proc/{}/task", self.holder.pid));
        let mut sleeping = Vec::new();
        for entry in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let stat = fs::read(entry.path().join("stat")).ok().and_then(|text| Stat::parse(&text));
            if let Some(stat) = stat.filter(|stat| stat.state == 'D') {
                let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
                sleeping.push(format!(
                    "task {} ({}) is in uninterruptible sleep in the kernel: {}",
                    entry.file_name().to_string_lossy(),
                    stat.comm,
                    asleep(&read("stack"), &read("wchan"))
                ));
            }
        }
        if sleeping.is_empty() {
            return "it is still ending".to_owned();
        }
        sleeping.join("; ")
    }
}

/// A holder for messages: pid, user and command line.
pub(crate) fn name(holder: &Holder) -> String {
    format!("process {} of user {} ({})", holder.pid, user(holder), holder.command_line())
}

/// The user whose it is, for messages.
pub(crate) fn user(holder: &Holder) -> String {
    holder.user.clone().unwrap_or_else(|| holder.uid.to_string())
}

/// The functions of a `/proc/PID/stack`, innermost first. A line is `[<0>] NAME+0x1/0x2 [MODULE]`. The kernel shows
/// it to CAP_SYS_ADMIN only, which this step has no other use for; the innermost, in `/proc/PID/wchan`, to any that
/// may trace the process.
fn asleep(stack: &str, wchan: &str) -> String {
    let names: Vec<&str> = stack
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|call| call.split('+').next().unwrap_or(call))
        .collect();
    match (names.is_empty(), wchan) {
        (false, _) => names.join(" < "),
        (true, "" | "0") => "where cannot be read".to_owned(),
        (true, innermost) => innermost.to_owned(),
    }
}

fn stat(root: &Root, pid: i32) -> Option<Stat> {
    Stat::parse(&fs::read(root.path(format!("/proc/{pid}/stat"))).ok()?)
}

/// Waits until all of `victims` have ended or `until` has come; returns those that are left.
pub(crate) fn wait(mut victims: Vec<Victim>, until: Instant) -> Result<Vec<Victim>> {
    while !victims.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        let mut polled: Vec<PollFd<'_>> =
            victims.iter().map(|victim| PollFd::new(&victim.pidfd, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for processes to end"),
        }
        // A pidfd becomes readable when the last thread of its process has ended.
        let ended: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(polled);
        let mut ended = ended.into_iter();
        victims.retain(|_| !ended.next().unwrap_or(false));
        if left.is_zero() {
            break;
        }
    }
    Ok(victims)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holders::Owner;
    use std::process::{Child, Command, Stdio};

    fn start(script: &str) -> (Child, Holder) {
        let mut child =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("starts");
        // The script says when it is ready.
        let mut ready = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut ready).expect("reads");
        let pid = i32::try_from(child.id()).expect("a pid");
        let stat = stat(&Root::system(), pid).expect("is alive");
        let holder = Holder {
            pid,
            start_ticks: stat.start_ticks,
            since: None,
            uid: 0,
            user: Some("ada".into()),
            comm: stat.comm,
            command: vec!["sh".into(), "-c".into()],
            state: stat.state,
            devices: Vec::new(),
            owner: Owner::Process,
            screen: false,
            gpu_memory: None,
        };
        (child, holder)
    }

    fn take(holder: &Holder) -> Option<Victim> {
        Victim::take(&Root::system(), holder.clone()).expect("takes")
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn one_that_listens_ends_when_asked() {
        let (mut child, holder) = start("echo; exec sleep 600");
        let victim = take(&holder).expect("is alive");
        assert!(victim.ask().expect("signals"));
        assert!(wait(vec![victim], soon()).expect("waits").is_empty());
        let _ = child.wait();
    }

    #[test]
    fn one_that_is_stopped_ends_when_asked() {
        let (mut child, holder) = start("echo; exec sleep 600");
        let victim = take(&holder).expect("is alive");
        victim.signal(Signal::STOP).expect("signals");
        victim.ask().expect("signals");
        assert!(wait(vec![victim], soon()).expect("waits").is_empty());
        let _ = child.wait();
    }

    #[test]
    fn one_that_ignores_is_left_until_it_is_killed() {
        let (mut child, holder) = start("trap '' TERM; echo; while :; do sleep 1; done");
        let victim = take(&holder).expect("is alive");
        victim.ask().expect("signals");
        let left = wait(vec![victim], Instant::now() + Duration::from_millis(50)).expect("waits");
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].what_keeps_it(&Root::system()), "it is still ending");
        left[0].signal(Signal::KILL).expect("signals");
        assert!(wait(left, soon()).expect("waits").is_empty());
        let _ = child.wait();
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_taken() {
        let (mut child, holder) = start("echo; exec sleep 600");
        let reused = Holder { start_ticks: holder.start_ticks + 1, ..holder.clone() };
        assert!(take(&reused).is_none());
        let victim = take(&holder).expect("is alive");
        let _ = child.kill();
        let _ = child.wait();
        assert!(!victim.ask().expect("signals"), "the descriptor stands for the one that is gone");
        assert!(take(&holder).is_none());
    }

    #[test]
    fn a_kernel_stack_is_shortened_to_its_calls() {
        let stack = "[<0>] uvm_release+0x1f/0x40 [nvidia_uvm]\n[<0>] __fput+0x1/0x2\n";
        assert_eq!(asleep(stack, "uvm_release"), "uvm_release < __fput");
        assert_eq!(asleep("", "uvm_release"), "uvm_release");
        assert_eq!(asleep("", "0"), "where cannot be read");
    }
}
