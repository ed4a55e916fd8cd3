//! Asking NVML in a process of its own, for at most so long.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::de::DeserializeOwned;

use crate::State;

/// The helper that answers.
pub const HELPER: &str = "/usr/libexec/nvidia-reload/ask-nvml";

/// What the helper can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Question {
    /// Which libnvidia-ml the linker chooses: [`crate::library`].
    Library,
    /// How NVML and every GPU is: [`crate::state()`].
    State,
    /// Who uses the GPUs: [`crate::usage`].
    Usage,
    /// How the GPUs are linked: [`crate::links()`].
    Links,
}

impl Question {
    fn word(self) -> &'static str {
        match self {
            Question::Library => "library",
            Question::State => "state",
            Question::Usage => "usage",
            Question::Links => "links",
        }
    }
}

/// Asks `helper` and waits for its answer until the deadline; none if it did not answer by then.
///
/// # Errors
/// The helper cannot be started, or ends with something else than an answer.
pub fn ask_helper<T: DeserializeOwned>(
    helper: &Path,
    question: Question,
    time: Duration,
) -> Result<Option<T>> {
    talk(Command::new(helper).arg(question.word()), &[], time)
}

/// Asks `helper` how NVML and every GPU is; of the library `kept` where the linker's does not fit the
/// loaded driver; with `if_started`, only if a GPU was started since the driver was loaded. None if it
/// did not answer in time.
///
/// # Errors
/// As for [`ask_helper`].
pub fn ask_state(
    helper: &Path,
    kept: Option<&Path>,
    if_started: bool,
    time: Duration,
) -> Result<Option<State>> {
    let mut command = Command::new(helper);
    command.arg(Question::State.word());
    if if_started {
        command.arg("--if-started");
    }
    if let Some(kept) = kept {
        command.arg("--kept").arg(kept);
    }
    talk(&mut command, &[], time)
}

/// Starts `command`, gives it `input`, which has to fit into a pipe, and waits for what it says until
/// the deadline; none if it did not end by then.
///
/// # Errors
/// It cannot be started, fails, or says something else than was expected.
pub fn talk<T: DeserializeOwned>(command: &mut Command, input: &[u8], time: Duration) -> Result<Option<T>> {
    let until = Instant::now() + time;
    let shown = format!("{command:?}").replace('"', "");
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    if let Some(mut to) = child.stdin.take() {
        to.write_all(input).with_context(|| format!("tell {shown} what to do"))?;
    }
    let mut output = child.stdout.take().context("the helper has a standard output")?;
    let mut text = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("the deadline is too far away")?;
        let ready =
            poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)).context("wait for NVML")?;
        if ready == 0 {
            eprintln!("{shown} does not answer: {}", about(child.id()));
            // Stuck in the kernel it would not die of this; we do not wait for it.
            let _ = child.kill();
            return Ok(None);
        }
        let mut chunk = [0; 4096];
        match output.read(&mut chunk).context("read NVML's answer")? {
            0 => break,
            length => text.extend_from_slice(&chunk[..length]),
        }
    }
    let status = child.wait().with_context(|| format!("wait for {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    serde_json::from_slice(&text).with_context(|| format!("understand what {shown} says")).map(Some)
}

/// What a process is doing, for whoever has to find out why it does not answer: the driver that does not
/// let go of a call and a library that turns in circles are two different defects.
fn about(pid: u32) -> String {
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = of("stat");
    // Behind the name, which may hold anything: proc_pid_stat(5), fields 3, 14 and 15.
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

    #[test]
    fn an_answer_counts_only_in_time_and_when_it_is_one() {
        let say = |script: &str, input: &[u8], time| {
            talk::<u32>(Command::new("sh").args(["-c", script]), input, Duration::from_millis(time))
        };
        assert_eq!(say("cat", b"7", 10_000).expect("answers"), Some(7));
        assert_eq!(say("exec sleep 60", &[], 50).expect("is given up"), None);
        let mut at_rest = Command::new("sleep").arg("60").spawn().expect("starts");
        let now = Instant::now();
        while !about(at_rest.id()).starts_with("state S") {
            assert!(now.elapsed() < Duration::from_secs(10), "{}", about(at_rest.id()));
            std::thread::yield_now();
        }
        assert!(about(at_rest.id()).ends_with("; 0 s of CPU as a program, 0 s in the kernel"));
        at_rest.kill().and_then(|()| at_rest.wait()).expect("ends");
        assert!(say("echo x", &[], 10_000).is_err());
        let error = say("exit 3", &[], 10_000).expect_err("failed");
        assert!(error.to_string().contains("exit 3 ended with exit status: 3"), "{error}");
    }
}
