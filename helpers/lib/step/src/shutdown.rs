// SPDX-License-Identifier: MIT
//! Whether the machine is going down.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The sibling that speaks D-Bus, so that the helpers that ask need not.
const ASKED: &str = "/usr/libexec/nvidia-reload/stop-units";

/// How long it may take: PID 1 and the bus, one after the other.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whether the system manager is shutting the machine down.
///
/// An undo that starts workloads asks first: what is started now would be stopped again at once,
/// and the ledger would call it restored. At shutdown it leaves them to the next boot.
///
/// # Errors
/// It is not known: the helper that knows does not answer.
pub fn system_is_stopping() -> Result<bool> {
    ask(Path::new(ASKED))
}

fn ask(helper: &Path) -> Result<bool> {
    let asked = || format!("{} is-stopping", helper.display());
    let mut command = Command::new(helper);
    command.arg("is-stopping");
    let (status, _) = bounded::child(&mut command, Instant::now() + PATIENCE, 0)
        .with_context(|| format!("run {}", asked()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("{}: ended with {status}, neither yes nor no", asked()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_counts() {
        let ask = |helper: &str| ask(Path::new(helper));
        assert!(ask("/bin/true").expect("answers"));
        assert!(!ask("/bin/false").expect("answers"));
        let error = ask("/no/such/helper").expect_err("no answer");
        assert!(error.to_string().contains("/no/such/helper is-stopping"), "{error}");
    }
}
