// SPDX-License-Identifier: MIT
//! The runs on record, as data: what `history` lists and what `report` tells of one of them.

use std::fs;

use ledger::{Event, History, Object, Recorded, Run, Step};
use modules::DRIVER;
use serde::Serialize;
use step::{Entry, Root, Versions};

use parts::{steps, terminated, workloads};

use crate::fault::{Fault, Result};
use crate::report::{Failure, Missing, Outcome, Report};

mod parts;
mod what;

pub use what::{StartedBy, What};

/// The name and version of the JSON of `history`.
pub const HISTORY_SCHEMA: &str = "nvidia-reload.history/1";

/// The name and version of the JSON of `report`.
pub const REPORT_SCHEMA: &str = "nvidia-reload.report/1";

/// A run, in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Its id.
    pub run: String,
    /// When its first step began, in microseconds since 1970.
    pub began_usec: u64,
    /// When it was closed, in microseconds since 1970; null while it is open.
    pub ended_usec: Option<u64>,
    /// What it was for.
    pub what: What,
    /// How it ended: `done`, `rolled-back`, `cancelled` or `degraded`; null while it is open.
    pub result: Option<Outcome>,
    /// The driver that was loaded when it began; null for none.
    pub driver_before: Option<String>,
    /// The driver that was loaded when it ended; null for none, for an open run, and where that is not known.
    pub driver_after: Option<String>,
    /// From the beginning to the end.
    pub seconds: Option<f64>,
    /// The longest time for which one workload was down; null where none was stopped, or one still is.
    pub downtime_seconds: Option<f64>,
    /// What started it; null where that is not known, as of `systemctl start`.
    pub started_by: Option<StartedBy>,
    /// The step that failed first.
    pub failed_step: Option<Step>,
}

/// All runs on record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct List {
    /// [`HISTORY_SCHEMA`].
    pub schema: &'static str,
    /// The newest first.
    pub runs: Vec<Summary>,
    /// The records that cannot be read, each with why.
    pub unreadable: Vec<String>,
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepTime {
    /// Which.
    pub step: Step,
    /// When it began, in microseconds since 1970.
    pub began_usec: u64,
    /// When its work ended, in microseconds since 1970.
    pub ended_usec: u64,
    /// `done`, `failed` or `cancelled`.
    pub result: &'static str,
}

/// A container or unit that the run stopped.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workload {
    /// `container` or `unit`.
    pub kind: &'static str,
    /// What it is, with its name.
    pub name: String,
    /// When the run began to stop it, in microseconds since 1970.
    pub down_usec: u64,
    /// When it ran again, in microseconds since 1970; null where it does not.
    pub up_usec: Option<u64>,
    /// Between the two.
    pub seconds: Option<f64>,
    /// `restored`, `stopped` (the run is not over) or `not-restored`.
    pub state: &'static str,
    /// Why it is not restored, where that is known.
    pub reason: Option<String>,
}

/// A process that the run terminated or killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terminated {
    /// Its id.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its command line.
    pub command: String,
    /// When, in microseconds since 1970.
    pub at_usec: u64,
}

/// Everything that is known of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// [`REPORT_SCHEMA`].
    pub schema: &'static str,
    /// In short.
    #[serde(flatten)]
    pub summary: Summary,
    /// The boots in which something of it happened.
    pub boots: Vec<String>,
    /// Whether the driver had been verified: from there on it stays, whatever came after.
    pub committed: bool,
    /// The steps that did their part, or failed, in order.
    pub steps: Vec<StepTime>,
    /// When the first step failed or the run was cancelled, in microseconds since 1970; null where none did.
    pub failed_usec: Option<u64>,
    /// What was stopped, and for how long.
    pub workloads: Vec<Workload>,
    /// What was terminated, and is not restarted.
    pub terminated: Vec<Terminated>,
    /// The steps that failed, with their errors.
    pub failures: Vec<Failure>,
    /// What should be restored and is not.
    pub not_restored: Vec<Missing>,
    /// What our units wrote to the journal while it went on.
    pub journal: Vec<Entry>,
    /// What the kernel said of the driver meanwhile.
    pub kernel_log: Vec<Entry>,
    /// What was kept when the first step failed; null where nothing was.
    pub at_failure: Option<step::Failure>,
    /// What could not be read, in sentences.
    pub unseen: Vec<String>,
}

/// All runs on record.
///
/// # Errors
/// The ledger cannot be read.
pub fn on_record(root: &Root) -> Result<History> {
    let ledger = step::open_ledger(root)?;
    ledger.on_record().map_err(|error| {
        Fault::new(step::Exit::Failed, "the runs on record cannot be read", "").because(&*error)
    })
}

/// The runs of `history` in short.
pub fn list(root: &Root, history: &History) -> List {
    let passwd = passwd(root);
    let runs = history.runs.iter().map(|recorded| summary(recorded, &passwd)).collect();
    List { schema: HISTORY_SCHEMA, runs, unreadable: history.unreadable.clone() }
}

/// The run whose id begins with `wanted`, or the newest.
///
/// # Errors
/// There is none, or there are several.
pub fn choose<'a>(history: &'a History, wanted: Option<&str>) -> Result<&'a Recorded> {
    let listed = "`nvidia-reload history` lists the runs on record";
    let usage = |error: String| Fault::new(step::Exit::Usage, error, listed);
    let Some(wanted) = wanted else {
        return history.runs.first().ok_or_else(|| {
            Fault::new(
                step::Exit::Failed,
                "no run is on record",
                "`nvidia-reload status` shows the machine as it is",
            )
        });
    };
    let mut found = history.runs.iter().filter(|recorded| recorded.run.id.starts_with(wanted));
    match (found.next(), found.next()) {
        _ if wanted.is_empty() => Err(usage("a run's id is not empty".to_owned())),
        (Some(recorded), None) => Ok(recorded),
        (None, _) => Err(usage(format!("no run on record has an id that begins with {wanted}"))),
        (Some(_), Some(_)) => Err(usage(format!("several runs have an id that begins with {wanted}"))),
    }
}

/// What the record says of a run; the journal and what was kept at a failure are not in it yet.
pub fn account(root: &Root, recorded: &Recorded) -> Account {
    let (run, records) = (&recorded.run, &recorded.records);
    let mut boots: Vec<String> = records.iter().map(|record| record.boot.clone()).collect();
    boots.dedup();
    let failed = |event: &Event| matches!(event, Event::StepFailed { .. });
    let failed_usec = records.iter().find(|record| failed(&record.event)).map(|record| record.realtime_usec);
    let as_report = as_report(recorded);
    Account {
        schema: REPORT_SCHEMA,
        summary: in_short(root, recorded),
        boots,
        committed: run.committed,
        steps: steps(recorded),
        failed_usec,
        workloads: workloads(recorded),
        terminated: terminated(recorded),
        failures: as_report.failures,
        not_restored: as_report.missing,
        journal: Vec::new(),
        kernel_log: Vec::new(),
        at_failure: None,
        unseen: run.damaged.iter().map(|line| format!("The record is damaged: {line}.")).collect(),
    }
}

/// The report that ended the run, as far as the record has it.
pub fn as_report(recorded: &Recorded) -> Report {
    let summary = summary(recorded, "");
    let (command, unit) = match summary.what {
        What::Reload => ("reload", step::RELOAD),
        What::Reset => ("reset", step::RESET),
        What::Install => ("install", step::RELOAD),
        What::Rollback => ("rollback", step::RELOAD),
        What::Drained => ("stop", step::DRAINED),
        What::Offline => ("stop", step::OFFLINE),
    };
    let outcome = summary.result.unwrap_or(Outcome::Unfinished);
    let versions = |loaded: &Option<String>| Versions { loaded: loaded.clone(), on_disk: None };
    let mut after = versions(&summary.driver_after);
    if summary.result == Some(Outcome::Degraded) {
        after.loaded.get_or_insert_with(|| "(unknown)".to_owned());
    }
    Report {
        before: versions(&summary.driver_before),
        after,
        seconds: summary.seconds.unwrap_or_default(),
        ..Report::new(command, outcome, unit)
    }
    .with_run(&recorded.run)
}

/// A run in short.
pub fn in_short(root: &Root, recorded: &Recorded) -> Summary {
    summary(recorded, &passwd(root))
}

fn passwd(root: &Root) -> String {
    fs::read(root.path("/etc/passwd"))
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .unwrap_or_default()
}

fn summary(recorded: &Recorded, passwd: &str) -> Summary {
    let (run, records) = (&recorded.run, &recorded.records);
    let checks = records.iter().find_map(|record| match record.event {
        Event::StepDone { step: Step::Preflight, began_usec } => Some(began_usec),
        _ => None,
    });
    let began_usec = checks.map_or(run.opened_usec, |began| began.min(run.opened_usec));
    let ended_usec = run.outcome.map(|_| run.last_usec);
    let what = What::of(run, records);
    let downs = workloads(recorded);
    let downtime = match downs.iter().all(|workload| workload.seconds.is_some()) {
        true => downs.iter().filter_map(|workload| workload.seconds).reduce(f64::max),
        false => None,
    };
    Summary {
        run: run.id.clone(),
        began_usec,
        ended_usec,
        what,
        result: run.outcome.map(|outcome| result(run, outcome)),
        driver_before: version_before(run),
        driver_after: version_after(run),
        seconds: ended_usec.map(|ended| between(began_usec, ended)),
        downtime_seconds: downtime,
        started_by: run.snapshot.started_by.as_ref().map(|starter| StartedBy::of(starter, passwd)),
        failed_step: run.failures.first().map(|(step, _)| *step),
    }
}

fn result(run: &Run, outcome: ledger::Outcome) -> Outcome {
    match outcome {
        ledger::Outcome::Done => Outcome::Done,
        ledger::Outcome::Degraded => Outcome::Degraded,
        ledger::Outcome::RolledBack if run.cancelled => Outcome::Cancelled,
        // A machine that was held on purpose, and is not any more.
        ledger::Outcome::RolledBack if run.failures.is_empty() && run.snapshot.hold == Some(true) => {
            Outcome::Done
        }
        // Stopped between two steps: none of them was at work.
        ledger::Outcome::RolledBack if run.failures.is_empty() => Outcome::Cancelled,
        ledger::Outcome::RolledBack => Outcome::RolledBack,
    }
}

fn version_before(run: &Run) -> Option<String> {
    run.snapshot.modules.iter().find(|module| module.name == DRIVER).and_then(|module| module.version.clone())
}

/// The version that was loaded at the end, as far as the acts tell.
fn version_after(run: &Run) -> Option<String> {
    run.outcome?;
    let loaded = run.acts.iter().rev().find_map(|act| match (&act.object, act.step) {
        (Object::Module(module), Step::ModprobeChain) if module.name == DRIVER => module.version.clone(),
        _ => None,
    });
    let is_module = |act: &ledger::Act| matches!(act.object, Object::Module(_));
    let mut open = [Step::RmmodChain, Step::ModprobeChain].into_iter().flat_map(|step| run.outstanding(step));
    match run.committed {
        true => loaded.or_else(|| version_before(run)),
        // It is not known what such a run left behind.
        false if open.any(|act| is_module(&act)) => None,
        false => version_before(run),
    }
}

pub(crate) fn between(from_usec: u64, to_usec: u64) -> f64 {
    to_usec.saturating_sub(from_usec) as f64 / 1e6
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
