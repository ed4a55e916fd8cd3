//! Whether the machine is going down, or kept without its workloads: by the sibling that speaks D-Bus.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The sibling that speaks D-Bus, so that the helpers that ask need not.
const ASKED: &str = "/usr/libexec/nvidia-reload/stop-units";

/// Whether the system manager is shutting the machine down.
///
/// An undo that starts workloads asks first: what is started now would be stopped again at once,
/// and the ledger would call it given back. At shutdown it leaves them to the next boot.
///
/// # Errors
/// Nobody can tell: the helper that knows does not answer.
pub fn system_is_stopping() -> Result<bool> {
    ask(Path::new(ASKED), "is-stopping")
}

/// Whether the machine is kept drained or offline on purpose: nvidia-drained.target or
/// nvidia-offline.target is active.
///
/// # Errors
/// Nobody can tell: the helper that knows does not answer.
pub fn is_kept() -> Result<bool> {
    ask(Path::new(ASKED), "is-kept")
}

fn ask(helper: &Path, question: &str) -> Result<bool> {
    let asked = || format!("{} {question}", helper.display());
    let status = Command::new(helper)
        .arg(question)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
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
        let ask = |helper: &str| ask(Path::new(helper), "is-stopping");
        assert!(ask("/bin/true").expect("answers"));
        assert!(!ask("/bin/false").expect("answers"));
        let error = ask("/no/such/helper").expect_err("no answer");
        assert!(error.to_string().contains("/no/such/helper is-stopping"), "{error}");
    }
}
