//! The undos of other steps, as their own helpers know them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ledger::Step;

/// Where the helpers are installed.
const DIRECTORY: &str = "/usr/libexec/nvidia-reload";

/// Runs the undo of each of `steps` in turn; a failure does not keep the next from being tried.
/// Returns what went wrong.
///
/// Whoever gives back calls the same program that systemd calls when it unwinds, so there is one
/// way back for each thing, and a sequencer needs none of the code that talks to engines or D-Bus.
pub fn undo_steps(steps: &[Step]) -> Vec<String> {
    steps.iter().filter_map(|step| undo(*step, Path::new(DIRECTORY)).err()).collect()
}

/// How long the units of users may take, all in all: each user has a limit of its own.
const USERS: Duration = Duration::from_secs(150);

/// Has the units of users started that were stopped; returns what went wrong.
///
/// # Errors
/// The helper has named what is not started, or could not be run.
pub fn restore_units_of_users() -> Result<(), String> {
    let helper = Path::new(DIRECTORY).join(Step::StopUnits.name());
    let mut command = Command::new(&helper);
    command.arg("undo-users").env_remove("SERVICE_RESULT").env_remove("EXIT_STATUS");
    match bounded::child(&mut command, Instant::now() + USERS, 0) {
        Ok((status, _)) if status.success() => Ok(()),
        Ok((status, _)) => Err(format!("{} undo-users ended with {status}", helper.display())),
        Err(error) => Err(format!("run {} undo-users: {error}", helper.display())),
    }
}

fn undo(step: Step, directory: &Path) -> Result<(), String> {
    let helper = directory.join(step.name());
    let status = Command::new(&helper)
        .arg("undo")
        .stdin(Stdio::null())
        // A verdict of systemd on the caller is not one on the step whose undo this is.
        .env_remove("SERVICE_RESULT")
        .env_remove("EXIT_STATUS")
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} undo ended with {status}", helper.display())),
        Err(error) => Err(format!("start {}: {error}", helper.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_fails_or_is_missing_is_named() {
        let missing = undo(Step::UnbindVt, Path::new("/no/such/place")).expect_err("is missing");
        assert!(missing.contains("/no/such/place/unbind-vt"), "{missing}");
    }
}
