// SPDX-License-Identifier: MIT
//! One line of the ledger, and what the lines of a run add up to.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::object::{Object, Process};
use crate::snapshot::Snapshot;
use crate::step::Step;

/// The format that this program writes. Older ones are read and finished: whatever a newer one adds has a
/// default here. A ledger of a newer one is refused, never overwritten.
pub const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`VERSION`].
    pub v: u32,
    /// The run's id, a UUID.
    pub run: String,
    /// The kernel's boot id when the line was written.
    pub boot: String,
    /// When, in microseconds since 1970.
    pub realtime_usec: u64,
    /// What happened.
    pub event: Event,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new driver works and everything was restored.
    Done,
    /// The old state is back and everything was restored.
    RolledBack,
    /// Something could not be restored; the run's records name it.
    Degraded,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Done => "done",
            Outcome::RolledBack => "rolled-back",
            Outcome::Degraded => "degraded",
        })
    }
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The run begins.
    Opened {
        /// The machine as it was.
        snapshot: Box<Snapshot>,
    },
    /// An act is about to be done.
    Intent {
        /// Counts from 1 within the run.
        id: u64,
        /// Who does it.
        step: Step,
        /// To what.
        object: Object,
    },
    /// The act was done.
    Done {
        /// The intent's.
        id: u64,
    },
    /// The act was tried and did not happen: there is nothing to undo.
    Failed {
        /// The intent's.
        id: u64,
        /// Why.
        reason: String,
    },
    /// What the act took was restored.
    Undone {
        /// The intent's.
        id: u64,
    },
    /// What the act took cannot be restored.
    Lost {
        /// The intent's.
        id: u64,
        /// Why.
        reason: String,
    },
    /// Giving back was tried and failed; it may be tried again.
    UndoFailed {
        /// The intent's.
        id: u64,
        /// Why.
        reason: String,
    },
    /// A step failed.
    StepFailed {
        /// Which.
        step: Step,
        /// The error, with its causes.
        reason: String,
        /// It was ended from outside, before it could judge what it was about.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cancelled: bool,
    },
    /// A step did its part. It is for the account of the run; no undo is decided by it.
    StepDone {
        /// Which.
        step: Step,
        /// When it began, in microseconds since 1970; it ended when the line was written.
        began_usec: u64,
    },
    /// Verify succeeded: from here on no undo touches the driver.
    Committed,
    /// The run is over.
    Closed {
        /// How.
        outcome: Outcome,
    },
}

/// How far an act got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "reason", rename_all = "kebab-case")]
pub enum State {
    /// Written, perhaps done: the undo looks first.
    Intent,
    /// Done, not restored.
    Done,
    /// It did not happen.
    Failed(String),
    /// Given back.
    Undone,
    /// Cannot be restored.
    Lost(String),
    /// Could not be restored so far.
    UndoFailed(String),
}

/// An act of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Act {
    /// Counts from 1 within the run.
    pub id: u64,
    /// Who did it.
    pub step: Step,
    /// To what.
    pub object: Object,
    /// How far it got.
    #[serde(flatten)]
    pub state: State,
}

impl Act {
    /// The same, fit to be shown; see [`Object::without_secrets`].
    pub fn without_secrets(self) -> Self {
        Act { object: self.object.without_secrets(), ..self }
    }

    /// Whether something may still have to be restored.
    pub fn is_outstanding(&self) -> bool {
        matches!(self.state, State::Intent | State::Done | State::UndoFailed(_))
    }
}

/// What the lines of one run add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The run's id.
    pub id: String,
    /// The boot in which it began.
    pub boot: String,
    /// When it began, in microseconds since 1970.
    pub opened_usec: u64,
    /// The machine as it was.
    pub snapshot: Snapshot,
    /// All acts, in order.
    pub acts: Vec<Act>,
    /// The steps that failed, in order, with their errors.
    pub failures: Vec<(Step, String)>,
    /// Whether the driver on disk was found not to load, or not to serve.
    pub driver_failed: bool,
    /// Whether it was cancelled: a step was ended from outside.
    pub cancelled: bool,
    /// Whether verify succeeded.
    pub committed: bool,
    /// Whether restore did its part: only the end of the run is left.
    #[serde(skip)]
    pub restored: bool,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// The last line's time, in microseconds since 1970.
    pub last_usec: u64,
    /// The boot of the last line, or the later one of the reader.
    #[serde(skip)]
    pub(crate) last_boot: String,
    /// The lines that could not be understood, each `FILE:LINE: why`: what they said is not in the rest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

impl Run {
    /// The run that `first` is of, with nothing done so far. Where the line that opened it is damaged, the
    /// machine as it was is not known, and what was stopped can still be restored.
    pub(crate) fn begun(first: &Record) -> Self {
        let snapshot = match &first.event {
            Event::Opened { snapshot } => (**snapshot).clone(),
            _ => Snapshot::default(),
        };
        Run {
            id: first.run.clone(),
            boot: first.boot.clone(),
            opened_usec: first.realtime_usec,
            snapshot,
            acts: Vec::new(),
            failures: Vec::new(),
            driver_failed: false,
            cancelled: false,
            committed: false,
            restored: false,
            outcome: None,
            last_usec: first.realtime_usec,
            last_boot: first.boot.clone(),
            damaged: Vec::new(),
        }
    }

    /// Adds up lines. The first must open the run, all must belong to it.
    ///
    /// # Errors
    /// A line that contradicts those before it, named by its number.
    pub fn from_records(records: &[Record]) -> Result<Self> {
        let Some(first) = records.first() else {
            bail!("the ledger has no line");
        };
        if !matches!(first.event, Event::Opened { .. }) {
            bail!("line 1 does not open a run");
        }
        let mut run = Run::begun(first);
        let mut place = BTreeMap::new();
        for (number, record) in records.iter().enumerate().skip(1) {
            run.add(record, &mut place).with_context(|| format!("line {}", number + 1))?;
        }
        Ok(run)
    }

    pub(crate) fn add(&mut self, record: &Record, place: &mut BTreeMap<u64, usize>) -> Result<()> {
        if record.run != self.id {
            bail!("belongs to run {}, not to {}", record.run, self.id);
        }
        if self.outcome.is_some() {
            bail!("comes after the run was closed");
        }
        self.last_usec = record.realtime_usec;
        self.continues_in(&record.boot);
        let (id, state) = match &record.event {
            Event::Opened { .. } => bail!("opens the run a second time"),
            Event::Intent { id, step, object } => {
                if place.contains_key(id) {
                    bail!("writes act {id} a second time");
                }
                place.insert(*id, self.acts.len());
                self.acts.push(Act { id: *id, step: *step, object: object.clone(), state: State::Intent });
                return Ok(());
            }
            Event::StepFailed { step, reason, cancelled } => {
                self.failures.push((*step, reason.clone()));
                // A reset takes nothing from the disk.
                let loads = !self.snapshot.reset && matches!(step, Step::ModprobeChain | Step::Verify);
                self.driver_failed |= loads && !cancelled;
                self.cancelled |= cancelled;
                return Ok(());
            }
            Event::StepDone { step, .. } => {
                self.restored |= *step == Step::Restore;
                return Ok(());
            }
            Event::Committed => {
                self.committed = true;
                return Ok(());
            }
            Event::Closed { outcome } => {
                self.outcome = Some(*outcome);
                return Ok(());
            }
            Event::Done { id } => (*id, State::Done),
            Event::Undone { id } => (*id, State::Undone),
            Event::Failed { id, reason } => (*id, State::Failed(reason.clone())),
            Event::Lost { id, reason } => (*id, State::Lost(reason.clone())),
            Event::UndoFailed { id, reason } => (*id, State::UndoFailed(reason.clone())),
        };
        let at = place.get(&id).with_context(|| format!("speaks of act {id}, which no line announced"))?;
        self.acts[*at].state = state;
        Ok(())
    }

    /// What the run had restarted in another boot than `boot` does not run any more: it is to be restarted again, since
    /// the run is not over.
    pub(crate) fn continues_in(&mut self, boot: &str) {
        if self.last_boot == boot {
            return;
        }
        boot.clone_into(&mut self.last_boot);
        for act in &mut self.acts {
            if act.state == State::Undone && matches!(act.object, Object::Container(_) | Object::Unit(_)) {
                act.state = State::Done;
            }
        }
    }

    /// Whether a step failed or was cancelled: the run can only be rolled back, or after its commit closed.
    pub fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// What `step` may still have to restore, newest first.
    pub fn outstanding(&self, step: Step) -> Vec<Act> {
        self.acts.iter().rev().filter(|act| act.step == step && act.is_outstanding()).cloned().collect()
    }

    /// Everything that should have been restored and was not, newest first: outstanding or lost.
    /// Without the processes that were ended, of which it was known that they cannot come back.
    pub fn missing(&self) -> Vec<&Act> {
        self.acts
            .iter()
            .rev()
            .filter(|act| {
                (act.is_outstanding() || matches!(act.state, State::Lost(_))) && !self.is_final(act)
            })
            .collect()
    }

    /// The processes that were ended, oldest first.
    pub fn killed(&self) -> Vec<&Process> {
        let killed = |act: &'_ Act| !matches!(act.state, State::Failed(_) | State::Undone);
        self.acts
            .iter()
            .filter(|act| killed(act))
            .filter_map(|act| match &act.object {
                Object::Process(process) => Some(process),
                _ => None,
            })
            .collect()
    }

    /// The sessions whose devices were released, oldest first.
    pub fn released(&self) -> impl Iterator<Item = &Object> {
        let released = self.acts.iter().filter(|act| !matches!(act.state, State::Failed(_)));
        released.map(|act| &act.object).filter(|object| matches!(object, Object::Session(_)))
    }

    /// What was not meant to be restored: an ended process, a session's devices, and after the commit the driver's
    /// modules and files, whose change was the purpose of the run.
    fn is_final(&self, act: &Act) -> bool {
        match act.object {
            Object::Process(_) | Object::Session(_) => true,
            Object::Module(_) | Object::DriverFiles(_) | Object::Healed { .. } => self.committed,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_driver_that_was_tried_and_failed_takes_its_files_with_it() {
        let failed = |step, cancelled| Event::StepFailed { step, reason: "r".into(), cancelled };
        for (reset, step, cancelled, expected) in [
            (false, Step::Verify, false, true),
            (false, Step::ModprobeChain, false, true),
            // The run was stopped while verify was at it.
            (false, Step::Verify, true, false),
            (false, Step::RmmodChain, false, false),
            (true, Step::Verify, false, false),
        ] {
            let record =
                |event| Record { v: VERSION, run: "r".into(), boot: "b".into(), realtime_usec: 1, event };
            let snapshot = Box::new(Snapshot { reset, ..Snapshot::default() });
            let records = [record(Event::Opened { snapshot }), record(failed(step, cancelled))];
            let run = Run::from_records(&records).expect("adds up");
            assert_eq!(run.driver_failed, expected, "{step} cancelled {cancelled}, reset {reset}");
            assert_eq!((run.has_failed(), run.cancelled), (true, cancelled));
        }
        let line = serde_json::to_string(&failed(Step::Verify, false)).expect("encodes");
        assert!(!line.contains("cancelled"), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).expect("reads"), failed(Step::Verify, false));
    }
}
