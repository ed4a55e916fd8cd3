// SPDX-License-Identifier: MIT
//! How a run ended, as data: what the summary shows and what `--json` prints.

use serde::Serialize;
use step::{Exit, Reason, Versions};

use ledger::{Object, Run, Step};

use crate::follow::{Progress, State};
use crate::put_back::PutBack;

/// The name and version of the JSON of a run.
pub const SCHEMA: &str = "nvidia-reload.run/1";

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The driver was reloaded and everything is restored; or, of `start`, everything is restored.
    Done,
    /// What holds the GPUs is stopped, and stays so until `start`.
    Stopped,
    /// There was nothing to do.
    NothingToDo,
    /// The run was started, and its end was not waited for.
    Started,
    /// A step failed, and everything is as it was.
    RolledBack,
    /// It was cancelled, and everything is as it was.
    Cancelled,
    /// A step failed before anything was touched.
    Failed,
    /// It was refused before anything was touched.
    Refused,
    /// Only a reboot helps; nothing was touched.
    RebootRequired,
    /// It ended, and something is not restored.
    Degraded,
    /// It did not end in time: it goes on in systemd, or something is still to be restored.
    Unfinished,
    /// This command got a signal to end; the run goes on in systemd.
    Interrupted,
}

impl Outcome {
    /// The exit status that says so.
    pub fn exit(self) -> u8 {
        let exit = match self {
            Outcome::Done | Outcome::Stopped | Outcome::NothingToDo | Outcome::Started => Exit::Done,
            Outcome::RolledBack | Outcome::Cancelled | Outcome::Failed => Exit::Failed,
            Outcome::Refused => Exit::Refused,
            Outcome::RebootRequired => Exit::RebootRequired,
            Outcome::Degraded | Outcome::Unfinished => Exit::Degraded,
            Outcome::Interrupted => return crate::interrupt::INTERRUPTED,
        };
        exit as u8
    }
}

/// How one step went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Which.
    pub step: Step,
    /// `done`, `failed`, `undone` (it was done and rolled back), `waiting` (its turn never came),
    /// `running` or `undoing` (the end was not waited for).
    pub result: State,
    /// How long its work took; null where it did not run.
    pub seconds: Option<f64>,
    /// How long the restore took; null where it did not.
    pub undo_seconds: Option<f64>,
    /// Its last words.
    pub status: String,
}

/// Something that is not restored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Missing {
    /// What, in words.
    pub name: String,
    /// Who took it.
    pub step: Step,
    /// Why it is not restored; empty where it was not tried yet.
    pub reason: String,
    /// The thing itself, as the ledger has it.
    pub object: Object,
}

/// A step's own account of why it failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// Which.
    pub step: Step,
    /// The error with its causes.
    pub reason: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What was typed: `reload`, `stop`, …
    pub command: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What the command exits with.
    pub exit: u8,
    /// The unit that was started or stopped.
    pub unit: String,
    /// Whether the run was under way before.
    pub joined: bool,
    /// The ledger's id of the run; null if none was opened.
    pub run: Option<String>,
    /// Whether the new driver has been seen to work, and stays whatever came after.
    pub committed: bool,
    /// The driver before: loaded, and on disk.
    pub before: Versions,
    /// The driver now.
    pub after: Versions,
    /// From the start to the last thing restored.
    pub seconds: f64,
    /// The steps, in order.
    pub steps: Vec<StepReport>,
    /// What failed, in order.
    pub failures: Vec<Failure>,
    /// Why it was refused, and what to do about it.
    pub reasons: Vec<Reason>,
    /// Whether they were shown with the plan.
    #[serde(skip)]
    pub reasons_shown: bool,
    /// What was taken and is back, in words.
    #[serde(rename = "given_back")]
    pub restored: Vec<String>,
    /// What was stopped and stays so until `start`, in words.
    #[serde(rename = "kept")]
    pub staying: Vec<String>,
    /// Processes that were ended and sessions' devices that were released, in words: they do not come back by
    /// themselves.
    pub ended: Vec<String>,
    /// Parameters of the driver's modules that have another value than before, in words.
    pub changed: Vec<String>,
    /// Guests that have files of the previous driver mounted, and what to do, in words.
    pub stale: Vec<String>,
    /// What should be back and is not.
    pub missing: Vec<Missing>,
    /// The driver whose files the run put on disk without its package manager or installer; or null.
    pub put_back: Option<PutBack>,
}

impl Report {
    /// A report of a run that nothing is known of yet.
    pub fn new(command: &'static str, outcome: Outcome, unit: &str) -> Self {
        Self {
            schema: SCHEMA,
            command,
            outcome,
            exit: outcome.exit(),
            unit: unit.to_owned(),
            joined: false,
            run: None,
            committed: false,
            before: Versions::default(),
            after: Versions::default(),
            seconds: 0.0,
            steps: Vec::new(),
            failures: Vec::new(),
            reasons: Vec::new(),
            reasons_shown: false,
            restored: Vec::new(),
            staying: Vec::new(),
            ended: Vec::new(),
            changed: Vec::new(),
            stale: Vec::new(),
            missing: Vec::new(),
            put_back: None,
        }
    }

    /// Whether the run goes on without this command.
    pub fn is_left_to_systemd(&self) -> bool {
        matches!(self.outcome, Outcome::Started | Outcome::Unfinished | Outcome::Interrupted)
    }

    /// With the steps as far as they are.
    pub fn with_progress(mut self, progress: &Progress) -> Self {
        self.steps = progress
            .steps
            .iter()
            // It is no step of a good run; and where a run was refused there was nothing to roll back.
            .filter(|step| {
                let refused = progress.failed().is_some_and(|failed| failed.step == Step::Preflight);
                step.step != Step::Rollback || (step.state != State::Waiting && !refused)
            })
            .map(|step| StepReport {
                step: step.step,
                result: if step.failed { State::Failed } else { step.state },
                seconds: step.seconds,
                undo_seconds: step.undo_seconds,
                status: step.status.clone(),
            })
            .collect();
        self
    }

    /// With what the ledger has of the run.
    pub fn with_run(mut self, run: &Run) -> Self {
        self.run = Some(run.id.clone());
        self.committed = run.committed;
        self.failures = run
            .failures
            .iter()
            .map(|(step, reason)| Failure { step: *step, reason: reason.clone() })
            .collect();
        self.ended =
            run.killed().into_iter().map(|process| Object::Process(process.clone()).to_string()).collect();
        self.ended.extend(run.released().map(ToString::to_string));
        // What people own; the driver's own parts are covered by its version.
        let is_theirs = |object: &Object| {
            matches!(
                object,
                Object::Container(_) | Object::Unit(_) | Object::Console(_) | Object::Settings(_)
            )
        };
        for act in run.acts.iter().filter(|act| act.state == ledger::State::Undone && is_theirs(&act.object))
        {
            self.restored.push(act.object.to_string());
        }
        for act in run.missing() {
            let reason = match &act.state {
                ledger::State::Lost(reason) | ledger::State::UndoFailed(reason) => reason.clone(),
                _ => String::new(),
            };
            // A machine that stays as it was has the rest stopped on purpose.
            if matches!(self.outcome, Outcome::Stopped | Outcome::Refused) {
                if is_theirs(&act.object) {
                    self.staying.push(act.object.to_string());
                }
            } else {
                let object = act.object.clone();
                let (name, object) = (object.to_string(), object.without_secrets());
                self.missing.push(Missing { name, step: act.step, reason, object });
            }
        }
        self
    }
}
