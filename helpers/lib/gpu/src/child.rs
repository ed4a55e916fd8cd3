// SPDX-License-Identifier: MIT
//! Asking NVML in a process of its own, for at most so long.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
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

/// Asks `helper` how NVML and every GPU is; of the library `fallback` where the linker's does not fit the
/// loaded driver; with `if_started`, only if a GPU was started since the driver was loaded. None if it
/// did not answer in time.
///
/// # Errors
/// As for [`ask_helper`].
pub fn ask_state(
    helper: &Path,
    fallback: Option<&Path>,
    if_started: bool,
    time: Duration,
) -> Result<Option<State>> {
    let mut command = Command::new(helper);
    command.arg(Question::State.word());
    if if_started {
        command.arg("--if-started");
    }
    if let Some(fallback) = fallback {
        command.arg("--fallback").arg(fallback);
    }
    talk(&mut command, &[], time)
}

/// Starts `command`, gives it `input`, which has to fit into a pipe, and waits for what it says until
/// the deadline; none if it did not end by then.
///
/// # Errors
/// It cannot be started, fails, or says something else than was expected.
pub fn talk<T: DeserializeOwned>(command: &mut Command, input: &[u8], time: Duration) -> Result<Option<T>> {
    let shown = format!("{command:?}").replace('"', "");
    let read = |output: &mut dyn Read| {
        let mut text = Vec::new();
        output.read_to_end(&mut text).map(|_| text)
    };
    let (status, text) = match bounded::stream(command, input, Instant::now() + time, read) {
        Ok(answer) => answer,
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            eprintln!("{shown} does not answer: {error}");
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("run {shown}")),
    };
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    serde_json::from_slice(&text).with_context(|| format!("understand what {shown} says")).map(Some)
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
        // It has closed its output, as a process does that is stuck in the kernel on its way out.
        assert_eq!(say("exec >&-; exec sleep 60", &[], 50).expect("is given up"), None);
        assert!(say("echo x", &[], 10_000).is_err());
        let error = say("exit 3", &[], 10_000).expect_err("failed");
        assert!(error.to_string().contains("exit 3 ended with exit status: 3"), "{error}");
    }
}
