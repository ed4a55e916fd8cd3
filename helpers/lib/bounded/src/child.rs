// SPDX-License-Identifier: MIT
//! Other programs.

use std::fs;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpgid, kill_process_group, pidfd_open};

/// How long a killed child may take to end. One that is stuck in the kernel is left to PID 1.
const KILLED: Duration = Duration::from_secs(2);

/// The most that is written to a child: a pipe takes that much before anyone reads.
const INPUT: usize = 64 << 10;

/// Runs `command` and returns how it ended. What passes the deadline is killed; with all of its process
/// group, if the command leads one (`process_group(0)`). A child that is stuck in the kernel is not waited
/// for.
///
/// # Errors
/// It cannot be started, or `TimedOut`, which says what the child was doing.
pub fn run(command: &mut Command, deadline: Instant) -> io::Result<ExitStatus> {
    Ok(supervise(command.stdin(Stdio::null()), deadline, |_| Ok(()))?.0)
}

/// As [`run`]; also returns what the child wrote to standard output, at most `most` bytes.
///
/// # Errors
/// As for [`run`], or `InvalidData` for too many bytes.
pub fn child(command: &mut Command, deadline: Instant, most: usize) -> io::Result<(ExitStatus, Vec<u8>)> {
    stream(command, &[], deadline, |output| up_to(output, most))
}

/// As [`child`], with standard error in what is returned.
///
/// # Errors
/// As for [`child`].
pub fn child_with_errors(
    command: &mut Command,
    deadline: Instant,
    most: usize,
) -> io::Result<(ExitStatus, Vec<u8>)> {
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    supervise(command, deadline, |_| up_to(&mut Timed { from: reader, deadline }, most))
}

/// As [`child`], for a child that is given `input`, 64 KiB at most, and whose output `read` reads.
///
/// # Errors
/// As for [`run`], and those of `read`; then the child is killed.
pub fn stream<T>(
    command: &mut Command,
    input: &[u8],
    deadline: Instant,
    read: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<(ExitStatus, T)> {
    if input.len() > INPUT {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("input of more than {INPUT} bytes")));
    }
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() }).stdout(Stdio::piped());
    supervise(command, deadline, |child| {
        if let Some(mut to) = child.stdin.take() {
            to.write_all(input)?;
        }
        let from: ChildStdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        read(&mut Timed { from, deadline })
    })
}

fn up_to(output: &mut dyn Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    output.take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() > most {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {most} bytes"))),
        false => Ok(bytes),
    }
}

/// Output that is read until a deadline.
struct Timed<F> {
    from: F,
    deadline: Instant,
}

impl<F: Read + std::os::fd::AsFd> Read for Timed<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        await_input(&self.from, self.deadline)?;
        self.from.read(buffer)
    }
}

fn await_input(file: &impl std::os::fd::AsFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = crate::left(deadline)?;
        let time = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Starts `command`, does `work` with it, and waits for its end.
fn supervise<T>(
    command: &mut Command,
    deadline: Instant,
    work: impl FnOnce(&mut Child) -> io::Result<T>,
) -> io::Result<(ExitStatus, T)> {
    let begun = Instant::now();
    let mut child = command.spawn()?;
    // A pipe that the command itself still holds would never end.
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let group = Pid::from_child(&child);
    let leads = getpgid(Some(group)) == Ok(group);
    let result = work(&mut child).and_then(|done| Ok((wait(&mut child, deadline)?, done)));
    let Err(error) = result else { return result };
    let error = match error.kind() {
        io::ErrorKind::TimedOut => {
            let limit = deadline.saturating_duration_since(begun).as_secs();
            io::Error::new(error.kind(), format!("no end within {limit} s ({})", about(child.id())))
        }
        _ => error,
    };
    // It may have ended meanwhile; then there is nothing to kill.
    let _ = child.kill();
    if leads {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = wait(&mut child, Instant::now() + KILLED);
    Err(error)
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    end_of(Pid::from_child(child).as_raw_pid(), deadline)?;
    child.wait()
}

/// Waits until the child `pid` of this process has ended; what it left is still to be collected.
///
/// # Errors
/// The kernel's, or `TimedOut`.
pub fn end_of(pid: i32, deadline: Instant) -> io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    await_input(&pidfd_open(pid, PidfdFlags::empty())?, deadline)
}

/// What a process does, for the person who has to find out why it does not end: a driver that does not
/// return from a call and a library that runs in circles are two different faults.
fn about(pid: u32) -> String {
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = of("stat");
    // After the name, which may hold anything: proc_pid_stat(5), fields 3, 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let seconds = |field: usize| {
        let ticks: u64 = fields.get(field - 3).and_then(|ticks| ticks.parse().ok()).unwrap_or_default();
        ticks / rustix::param::clock_ticks_per_second()
    };
    let state = fields.first().copied().unwrap_or("gone");
    let wchan = of("wchan");
    let at = if matches!(wchan.as_str(), "" | "0") { String::new() } else { format!(", in {wchan}") };
    format!("state {state}{at}; {} s of CPU as a program, {} s in the kernel", seconds(14), seconds(15))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(500)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn say(script: &str, most: usize, deadline: Instant) -> io::Result<(ExitStatus, Vec<u8>)> {
        child(Command::new("sh").args(["-c", script]), deadline, most)
    }

    #[test]
    fn what_a_child_says_and_how_it_ends() {
        let (status, output) = say("echo yes; exit 3", 100, late()).expect("runs");
        assert_eq!((status.code(), output.as_slice()), (Some(3), &b"yes\n"[..]));
        let mut both = Command::new("sh");
        let (status, output) =
            child_with_errors(both.args(["-c", "echo one; echo two >&2"]), late(), 100).expect("runs");
        assert_eq!((status.code(), output.as_slice()), (Some(0), &b"one\ntwo\n"[..]));
        let mut cat = Command::new("cat");
        let (status, output) = stream(&mut cat, b"given", late(), |output| up_to(output, 100)).expect("runs");
        assert_eq!((status.code(), output.as_slice()), (Some(0), &b"given"[..]));
        assert_eq!(run(Command::new("sh").args(["-c", "exit 4"]), late()).expect("runs").code(), Some(4));
        let missing = run(&mut Command::new("/no/such/program"), late()).expect_err("is not there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn neither_its_time_nor_its_words_are_without_limit() {
        let slow = say("exec sleep 60", 100, soon()).expect_err("is slow");
        assert_eq!(slow.kind(), io::ErrorKind::TimedOut);
        assert!(slow.to_string().starts_with("no end within 0 s (state S"), "{slow}");
        assert_eq!(
            say("exec >&-; exec sleep 60", 100, soon()).expect_err("is slow").kind(),
            io::ErrorKind::TimedOut
        );
        assert_eq!(say("exec yes", 100, late()).expect_err("is loud").kind(), io::ErrorKind::InvalidData);
        assert_eq!(
            say("sleep 60 & exit 0", 100, soon()).expect_err("is not closed").kind(),
            io::ErrorKind::TimedOut
        );
        let silent = run(Command::new("sleep").arg("60"), soon()).expect_err("is slow");
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        let much = stream(&mut Command::new("cat"), &[0; INPUT + 1], late(), |_| Ok(()));
        assert_eq!(much.expect_err("is too much").kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_leader_is_killed_with_its_group() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("pid");
        let script = format!("sleep 60 & echo $! >{}; wait", path.display());
        let mut command = Command::new("sh");
        let time_to_write = Instant::now() + Duration::from_secs(3);
        run(command.args(["-c", &script]).process_group(0), time_to_write).expect_err("is slow");
        let pid = fs::read_to_string(&path).expect("was written");
        let until = Instant::now() + Duration::from_secs(10);
        // Until its new parent has reaped it, it may be a zombie.
        while matches!(state(pid.trim()), Some(state) if state != "Z") {
            assert!(Instant::now() < until, "{} still runs", pid.trim());
            std::thread::yield_now();
        }
    }

    fn state(pid: &str) -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(stat.rsplit(')').next()?.split_whitespace().next()?.to_owned())
    }
}
