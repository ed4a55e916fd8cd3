// SPDX-License-Identifier: MIT
//! The undos of other steps, each in a unit of its own.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ledger::{Run, Step};

use crate::Context;
use crate::manager::{MARGIN, Order, order_unit, run_unit};
use crate::services::services_there;

/// Where the helpers are installed.
const DIRECTORY: &str = "/usr/libexec/nvidia-reload";

/// Has the undo of each of `steps` run, in turn; a failure does not keep the next from being tried.
/// Returns what went wrong.
///
/// It is the program that systemd calls when it undoes the step, in the same sandbox: so there is one road for
/// each thing, and restore and rollback have no rights that only one of the steps needs. PID 1 starts the unit.
/// It starts none while the machine goes down, which is said and counts as a failure: then each step is stopped
/// too, and is undone by itself.
///
/// Each undo has the time of [`undo_limit`], which systemd is asked for (`EXTEND_TIMEOUT_USEC`); what takes
/// longer is killed, and the next is tried.
pub fn undo_steps(context: &Context, steps: &[Step]) -> Vec<String> {
    let mut failed = Vec::new();
    for step in steps {
        let limit = undo_limit(*step);
        context.needs(limit + MARGIN);
        let unit = undo_unit(*step);
        match run_unit(&unit, limit, |status| context.status(status)) {
            Ok(true) => {}
            Ok(false) => failed.push(format!("there is no {unit}: {step} is not undone")),
            Err(error) => failed.push(format!("{unit}: {error}")),
        }
    }
    if !steps.is_empty() {
        context.needs(REST);
    }
    failed
}

/// Stops the undos of `steps`, where [`undo_steps`] was killed while one ran: the undos that systemd calls next
/// must not do the same beside it. Returns what went wrong.
pub fn stop_undos(steps: &[Step]) -> Vec<String> {
    let stop = |step: &Step| {
        let unit = undo_unit(*step);
        order_unit(Order::StopAndWait, &unit).err().map(|error| format!("{unit} is not stopped: {error}"))
    };
    steps.iter().filter_map(stop).collect()
}

/// The unit that undoes `step` where systemd does not do that by itself: its sandbox is that of the step.
pub(crate) fn undo_unit(step: Step) -> String {
    format!("nvidia-reload-undo-{}.service", step.name())
}

/// What the helper that runs undos may take afterwards: rollback loads the driver of a boot and reads back.
const REST: Duration = Duration::from_secs(15 * 60);

/// How long the undo of `step` may take: as its unit says (`TimeoutStopSec=`) or what the undo asks systemd
/// for. The sum of its own waits is less; a test adds them up.
pub fn undo_limit(step: Step) -> Duration {
    let minutes = match step {
        Step::DrainContainers => 85,
        Step::StopUnits | Step::InstallDriver => 15,
        Step::Preflight => 10,
        Step::RmmodChain | Step::GpuReset => 8,
        Step::ModprobeChain | Step::Settings => 5,
        Step::Restore => 6,
        Step::KillHolders | Step::UnbindVt | Step::Verify | Step::Rollback => 1,
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
    ask(Step::StopUnits, "undo-users", USERS, 0).map(drop)
}

/// What the helper of `step` prints, `most` bytes at most, where it is asked for `verb`.
fn ask(step: Step, verb: &str, limit: Duration, most: usize) -> Result<Vec<u8>, String> {
    let helper = Path::new(DIRECTORY).join(step.name());
    let mut command = Command::new(&helper);
    // A verdict of systemd on the caller is not one on this.
    command.arg(verb).env_remove("SERVICE_RESULT").env_remove("EXIT_STATUS");
    match bounded::child(&mut command, Instant::now() + limit, most) {
        Ok((status, output)) if status.success() => Ok(output),
        Ok((status, _)) => Err(format!("{} {verb} ended with {status}", helper.display())),
        Err(error) => Err(format!("run {} {verb}: {error}", helper.display())),
    }
}

/// How long the look for failed services may take: each question to the manager has a limit of its own.
const FAILED_SERVICES: Duration = Duration::from_secs(150);

/// Has the services noted in the open run that failed because of the old driver or the run: the undo of stop-units
/// starts them.
///
/// # Errors
/// The helper has named what it could not find out, or could not be run.
pub fn note_failed_services(context: &Context, run: &Run) -> Result<(), String> {
    // What is wrong with a configuration the helper says.
    if context
        .config()
        .is_ok_and(|config| !services_there(&context.root, &config).any(|name| may_fail(run, name)))
    {
        return Ok(());
    }
    ask(Step::StopUnits, "note-failed", FAILED_SERVICES, 0).map(drop)
}

/// Whether it is of interest that service `name` failed: it is started all the same where the run stopped it, and
/// left down where nothing wants it. Who holds a machine may have enabled it since.
fn may_fail(run: &Run, name: &str) -> bool {
    let is_stopped = run.outstanding(Step::StopUnits).iter().any(|act| act.object.is_system_unit(name));
    let is_unwanted = run.snapshot.unwanted_services.iter().any(|unwanted| unwanted == name);
    !is_stopped && (!is_unwanted || run.snapshot.hold != Some(false))
}

/// How long the GPUs get until they are in the fabric, beside what NVML takes to answer.
const FABRIC: Duration = Duration::from_secs(300);

/// Waits until every GPU that can be in the fabric is; says which are not.
///
/// # Errors
/// The helper could not find out, or could not be run.
pub fn await_fabric() -> Result<Vec<String>, String> {
    let output = ask(Step::Verify, "fabric", FABRIC, bounded::BODY)?;
    serde_json::from_slice(&output).map_err(|error| format!("understand verify fabric: {error}"))
}

/// Has the GPUs set as they were, by a child in the caller's own sandbox: rmmod-chain is undone while the machine
/// goes down, too.
///
/// # Errors
/// The helper has said what is not set, or could not be run.
pub fn undo_settings() -> Result<(), String> {
    undo(Step::Settings, Path::new(DIRECTORY), undo_limit(Step::Settings))
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
    use ledger::{Event, Object, Snapshot, Unit};

    use super::*;

    #[test]
    fn a_service_that_is_started_anyway_or_wanted_by_nothing_may_fail() {
        let unit = Unit { name: "stopped.service".into(), user: None, role: String::new() };
        let of_user = Unit { name: "of-user.service".into(), user: Some(7), role: String::new() };
        let taken: Vec<Event> = (1..)
            .zip([unit, of_user])
            .map(|(id, unit)| Event::Intent { id, step: Step::StopUnits, object: Object::Unit(unit) })
            .collect();
        for (hold, expected) in [(Some(false), false), (Some(true), true), (None, true)] {
            let snapshot =
                Snapshot { hold, unwanted_services: vec!["off.service".into()], ..Snapshot::default() };
            let mut run = golden::run(&taken);
            run.snapshot = snapshot;
            assert_eq!(may_fail(&run, "off.service"), expected, "{hold:?}");
            assert!(!may_fail(&run, "stopped.service"));
            assert!(may_fail(&run, "of-user.service") && may_fail(&run, "other.service"));
        }
    }

    #[test]
    fn a_helper_that_fails_or_is_missing_is_named() {
        let limit = Duration::from_secs(10);
        let missing = undo(Step::UnbindVt, Path::new("/no/such/place"), limit).expect_err("is missing");
        assert!(missing.contains("/no/such/place/unbind-vt"), "{missing}");
    }

    #[test]
    fn an_undo_that_does_not_end_is_killed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        golden::script(&directory.path().join("unbind-vt"), "exec sleep 60");
        let late = undo(Step::UnbindVt, directory.path(), Duration::from_millis(300)).expect_err("is late");
        assert!(late.contains("unbind-vt undo: no end within"), "{late}");
    }
}
