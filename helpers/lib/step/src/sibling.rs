//! The undos of other steps, as their own helpers know them.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ledger::Step;

use crate::Context;

/// Where the helpers are installed.
const DIRECTORY: &str = "/usr/libexec/nvidia-reload";

/// Runs the undo of each of `steps` in turn; a failure does not keep the next from being tried.
/// Returns what went wrong.
///
/// Whoever gives back calls the same program that systemd calls when it unwinds, so there is one
/// way back for each thing, and a sequencer needs none of the code that talks to engines or D-Bus.
///
/// Each undo has the time of [`undo_limit`], which systemd is asked for (`EXTEND_TIMEOUT_USEC`); what takes
/// longer is killed, and the next is tried.
pub fn undo_steps(context: &Context, steps: &[Step]) -> Vec<String> {
    let mut failed = Vec::new();
    for step in steps {
        let limit = undo_limit(*step);
        context.needs(limit + MARGIN);
        failed.extend(undo(*step, Path::new(DIRECTORY), limit).err());
    }
    if !steps.is_empty() {
        context.needs(REST);
    }
    failed
}

/// What starting and killing an undo takes.
const MARGIN: Duration = Duration::from_secs(30);

/// What whoever runs undos may take afterwards: rollback loads the driver of a boot and reads back.
const REST: Duration = Duration::from_secs(15 * 60);

/// How long the undo of `step` may take: as its unit says (`TimeoutStopSec=`) or what the undo asks systemd
/// for. The sum of its own waits is less; a test adds them up.
pub fn undo_limit(step: Step) -> Duration {
    let minutes = match step {
        Step::DrainContainers => 65,
        Step::StopUnits | Step::InstallDriver => 15,
        Step::Preflight => 10,
        Step::RmmodChain | Step::GpuReset => 8,
        Step::ModprobeChain | Step::Settings => 5,
        Step::KillHolders | Step::UnbindVt | Step::Verify | Step::Restore | Step::Rollback => 1,
    };
    Duration::from_secs(60 * minutes)
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

/// How long the look for felled services may take: each question to the manager has a limit of its own.
const FELLED: Duration = Duration::from_secs(150);

/// Has the services noted in the open run that the old driver, or the run, has felled: the undo of stop-units
/// starts them.
///
/// # Errors
/// The helper has named what it could not find out, or could not be run.
pub fn note_felled() -> Result<(), String> {
    let helper = Path::new(DIRECTORY).join(Step::StopUnits.name());
    let mut command = Command::new(&helper);
    command.arg("note-felled").env_remove("SERVICE_RESULT").env_remove("EXIT_STATUS");
    match bounded::child(&mut command, Instant::now() + FELLED, 0) {
        Ok((status, _)) if status.success() => Ok(()),
        Ok((status, _)) => Err(format!("{} note-felled ended with {status}", helper.display())),
        Err(error) => Err(format!("run {} note-felled: {error}", helper.display())),
    }
}

/// How long the GPUs get until they are in the fabric, beside what NVML takes to answer.
const FABRIC: Duration = Duration::from_secs(300);

/// Waits until every GPU that can be in the fabric is; says which are not.
///
/// # Errors
/// The helper could not find out, or could not be run.
pub fn await_fabric() -> Result<Vec<String>, String> {
    let helper = Path::new(DIRECTORY).join(Step::Verify.name());
    let mut command = Command::new(&helper);
    command.arg("fabric").env_remove("SERVICE_RESULT").env_remove("EXIT_STATUS");
    let output = match bounded::child(&mut command, Instant::now() + FABRIC, bounded::BODY) {
        Ok((status, output)) if status.success() => output,
        Ok((status, _)) => return Err(format!("{} fabric ended with {status}", helper.display())),
        Err(error) => return Err(format!("run {} fabric: {error}", helper.display())),
    };
    serde_json::from_slice(&output)
        .map_err(|error| format!("understand {} fabric: {error}", helper.display()))
}

fn undo(step: Step, directory: &Path, limit: Duration) -> Result<(), String> {
    let helper = directory.join(step.name());
    let mut command = Command::new(&helper);
    // A verdict of systemd on the caller is not one on the step whose undo this is.
    command.arg("undo").env_remove("SERVICE_RESULT").env_remove("EXIT_STATUS").process_group(0);
    match bounded::run(&mut command, Instant::now() + limit) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} undo ended with {status}", helper.display())),
        Err(error) => Err(format!("run {} undo: {error}", helper.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_fails_or_is_missing_is_named() {
        let limit = Duration::from_secs(10);
        let missing = undo(Step::UnbindVt, Path::new("/no/such/place"), limit).expect_err("is missing");
        assert!(missing.contains("/no/such/place/unbind-vt"), "{missing}");
    }

    #[test]
    fn an_undo_that_does_not_end_is_killed() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let helper = directory.path().join("unbind-vt");
        let text = directory.path().join("text");
        std::fs::write(&text, "#!/bin/sh\nexec sleep 60\n").expect("writes");
        std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).expect("sets");
        // By another process: a child of a test beside this one may have our descriptor (ETXTBSY).
        assert!(Command::new("cp").arg(&text).arg(&helper).status().expect("runs").success());
        let late = undo(Step::UnbindVt, directory.path(), Duration::from_millis(300)).expect_err("is late");
        assert!(late.contains("unbind-vt undo: no end within"), "{late}");
    }
}
