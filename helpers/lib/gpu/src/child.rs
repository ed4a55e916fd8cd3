//! Asking NVML in a process of its own, for at most so long.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::de::DeserializeOwned;

/// The helper that answers.
pub const HELPER: &str = "/usr/libexec/nvidia-reload/ask-nvml";

/// What the helper can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Question {
    /// Which libnvidia-ml the linker chooses: [`crate::library`].
    Library,
    /// How NVML is, once it is started: [`crate::ask`].
    Nvml,
    /// Who uses the GPUs: [`crate::usage`].
    Usage,
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
    let verb = match question {
        Question::Library => "library",
        Question::Nvml => "nvml",
        Question::Usage => "usage",
    };
    let until = Instant::now() + time;
    let mut child = Command::new(helper)
        .arg(verb)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", helper.display()))?;
    let mut output = child.stdout.take().context("the helper has a standard output")?;
    let mut text = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("the deadline is too far away")?;
        let ready =
            poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)).context("wait for NVML")?;
        if ready == 0 {
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
    let status = child.wait().context("wait for the helper")?;
    if !status.success() {
        bail!("{} {verb} ended with {status}", helper.display());
    }
    serde_json::from_slice(&text)
        .with_context(|| format!("understand what {} {verb} says", helper.display()))
        .map(Some)
}
