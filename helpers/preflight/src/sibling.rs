// SPDX-License-Identifier: MIT
//! The siblings that are asked what they would do.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;

/// The helper that speaks with the engines.
pub(crate) const DRAIN: &str = "/usr/libexec/nvidia-reload/drain-containers";
/// The helper that speaks with the service managers.
pub(crate) const STOP: &str = "/usr/libexec/nvidia-reload/stop-units";

/// How long a sibling may take. What it asks has limits of its own.
pub(crate) const SIBLING: Duration = Duration::from_secs(400);

/// What `helper list --json` says by `until`.
pub(crate) fn ask<T: DeserializeOwned>(helper: &str, nodes: &[String], until: Instant) -> Result<T> {
    let mut command = Command::new(helper);
    command.args(["list", "--json"]).args(nodes.iter().map(|node| format!("--node={node}")));
    answer(&mut command, until)
}

/// What a sibling says by `until`.
pub(crate) fn answer<T: DeserializeOwned>(command: &mut Command, until: Instant) -> Result<T> {
    let words = format!(
        "{} {}",
        command.get_program().display(),
        command.get_args().next().unwrap_or_default().display()
    );
    let (status, output) =
        bounded::child(command, until, bounded::BODY).with_context(|| format!("run {words}"))?;
    if !status.success() {
        anyhow::bail!("{words} ended with {status}");
    }
    serde_json::from_slice(&output).with_context(|| format!("understand the output of {words}"))
}
