//! Other programs.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long a killed child may take to end. One that is stuck in the kernel is left to PID 1.
const KILLED: Duration = Duration::from_secs(2);

/// Runs `command` and returns how it ended and what it wrote to standard output, at most `most` bytes.
/// What passes a limit is killed.
///
/// # Errors
/// It cannot be started, `TimedOut`, or `InvalidData` for too many bytes.
pub fn child(command: &mut Command, deadline: Instant, most: usize) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
        let read = output.map_or(Ok(0), |output| output.take(limit).read_to_end(&mut bytes));
        let _ = sender.send(read.map(|_| bytes));
    })?;
    let result = receiver
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .and_then(|bytes| match bytes.len() > most {
            true => Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {most} bytes"))),
            false => Ok(bytes),
        })
        .and_then(|bytes| Ok((wait(&mut child, deadline)?, bytes)));
    if result.is_err() {
        // It may have ended meanwhile; then there is nothing to kill.
        let _ = child.kill();
        let _ = wait(&mut child, Instant::now() + KILLED);
    }
    result
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = crate::left(deadline)?;
        let time = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, most: usize) -> io::Result<(ExitStatus, Vec<u8>)> {
        child(Command::new("sh").args(["-c", script]), Instant::now() + Duration::from_millis(500), most)
    }

    #[test]
    fn what_a_child_says_and_how_it_ends() {
        let (status, output) = run("echo yes; exit 3", 100).expect("runs");
        assert_eq!((status.code(), output.as_slice()), (Some(3), &b"yes\n"[..]));
    }

    #[test]
    fn neither_its_time_nor_its_words_are_without_limit() {
        assert_eq!(run("exec sleep 60", 100).expect_err("is slow").kind(), io::ErrorKind::TimedOut);
        assert_eq!(run("exec >&-; exec sleep 60", 100).expect_err("is slow").kind(), io::ErrorKind::TimedOut);
        assert_eq!(run("exec yes", 100).expect_err("is loud").kind(), io::ErrorKind::InvalidData);
        assert_eq!(run("sleep 60 & exit 0", 100).expect_err("is not closed").kind(), io::ErrorKind::TimedOut);
    }
}
