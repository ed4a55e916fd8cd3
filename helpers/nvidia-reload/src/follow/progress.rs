// SPDX-License-Identifier: MIT
//! How far the steps are: what systemd tells of their units, added up.

use bus::{ActiveState, Service, UnitChange};
use ledger::Step;
use serde::Serialize;

/// What a step does, or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its turn has not come.
    Waiting,
    /// It is at work.
    Running,
    /// It did its work.
    Done,
    /// It failed.
    Failed,
    /// It restores what it took.
    Undoing,
    /// It has restored what it took.
    Undone,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The steps run, first to last.
    Forward,
    /// The work is done; systemd lets go of the units.
    Closing,
    /// The steps roll back, last to first.
    RollingBack,
    /// The same where nothing failed: what was stopped on purpose is restored.
    Restoring,
}

/// A step, as far as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct StepProgress {
    /// Which.
    pub step: Step,
    /// What it does.
    pub state: State,
    /// Whether it failed, whatever came after.
    pub failed: bool,
    /// Its own words.
    pub status: String,
    /// How it exited, if it failed by itself.
    pub exit_status: Option<i32>,
    /// How long its work took.
    pub seconds: Option<f64>,
    /// How long its undo took.
    pub undo_seconds: Option<f64>,
    /// When what it does now began, in microseconds of CLOCK_MONOTONIC.
    since_usec: u64,
    /// The unit as it was seen last.
    seen: UnitState,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct UnitState {
    active: Option<ActiveState>,
    result: String,
    started_usec: u64,
    exited_usec: u64,
    code: i32,
    status: i32,
}

/// All steps of a run, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The steps.
    pub steps: Vec<StepProgress>,
    /// Where the run is.
    pub phase: Phase,
    /// What a unit did before this moment belongs to an earlier run.
    since_usec: u64,
}

/// A step's state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing that is shown.
    None,
    /// Its words.
    Status,
    /// Its state.
    State,
}

impl Progress {
    /// A run of `steps` that begins at `since_usec` of CLOCK_MONOTONIC.
    pub fn new(steps: &[Step], phase: Phase, since_usec: u64) -> Self {
        Self { steps: steps.iter().copied().map(StepProgress::new).collect(), phase, since_usec }
    }

    /// What was seen so far was an earlier run: `since_usec` is when ours begins.
    pub fn restart(&mut self, since_usec: u64) {
        self.since_usec = since_usec;
        for step in &mut self.steps {
            let seen = std::mem::take(&mut step.seen);
            *step = StepProgress { seen, ..StepProgress::new(step.step) };
        }
    }

    /// The steps' unit `unit` is as it was read now.
    pub fn look(&mut self, unit: &str, active: ActiveState, service: &Service, now_usec: u64) -> Change {
        let change = UnitChange {
            active: Some(active),
            result: Some(service.result.clone()),
            status_text: Some(service.status_text.clone()),
            started_usec: Some(service.started_usec),
            exited_usec: Some(service.exited_usec),
            code: Some(service.code),
            status: Some(service.status),
            ..UnitChange::default()
        };
        self.change(unit, &change, now_usec)
    }

    /// The steps' unit `unit` changed.
    pub fn change(&mut self, unit: &str, change: &UnitChange, now_usec: u64) -> Change {
        let (phase, since) = (self.phase, self.since_usec);
        match self.steps.iter_mut().find(|step| step.step.unit() == unit) {
            Some(step) => step.change(change, phase, since, now_usec),
            None => Change::None,
        }
    }

    /// The job of the steps' unit `unit` ended badly: that is known even if its unit is not seen
    /// to fail.
    pub fn job_failed(&mut self, unit: &str) -> Change {
        match self.steps.iter_mut().find(|step| step.step.unit() == unit) {
            Some(step) if matches!(step.state, State::Waiting | State::Running) => {
                step.failed = true;
                step.state = State::Failed;
                Change::State
            }
            _ => Change::None,
        }
    }

    /// The step of `unit`.
    pub fn step(&self, unit: &str) -> Option<&StepProgress> {
        self.steps.iter().find(|step| step.step.unit() == unit)
    }

    /// Whether no step but those of `staying` is at work or has anything to restore.
    pub fn is_settled(&self, staying: &[Step]) -> bool {
        let is_up = |step: &StepProgress| step.seen.active.as_ref().is_some_and(ActiveState::is_up);
        self.steps.iter().all(|step| staying.contains(&step.step) || !is_up(step))
    }

    /// The step that failed first.
    pub fn failed(&self) -> Option<&StepProgress> {
        self.steps.iter().find(|step| step.failed)
    }
}

impl StepProgress {
    fn new(step: Step) -> Self {
        Self {
            step,
            state: State::Waiting,
            failed: false,
            status: String::new(),
            exit_status: None,
            seconds: None,
            undo_seconds: None,
            since_usec: 0,
            seen: UnitState::default(),
        }
    }

    /// How long it has been doing what it does.
    pub fn elapsed(&self, now_usec: u64) -> f64 {
        now_usec.saturating_sub(self.since_usec) as f64 / 1e6
    }

    fn change(&mut self, change: &UnitChange, phase: Phase, run_since: u64, now: u64) -> Change {
        let seen = &mut self.seen;
        let set = |value: &mut u64, new: Option<u64>| *value = new.unwrap_or(*value);
        set(&mut seen.started_usec, change.started_usec);
        set(&mut seen.exited_usec, change.exited_usec);
        seen.code = change.code.unwrap_or(seen.code);
        seen.status = change.status.unwrap_or(seen.status);
        if let Some(result) = &change.result {
            seen.result.clone_from(result);
        }
        let before = self.state;
        if let Some(active) = &change.active {
            seen.active = Some(active.clone());
            let of_this_run = seen.started_usec != 0 && seen.started_usec >= run_since;
            self.enter(&active.clone(), of_this_run, phase, now);
        }
        // Words of an earlier run are still there until the unit starts again.
        let spoken = match &change.status_text {
            Some(text) if self.state != State::Waiting && *text != self.status => {
                self.status.clone_from(text);
                true
            }
            _ => false,
        };
        match () {
            () if self.state != before => Change::State,
            () if spoken => Change::Status,
            () => Change::None,
        }
    }

    fn enter(&mut self, active: &ActiveState, of_this_run: bool, phase: Phase, now: u64) {
        let bad = !matches!(self.seen.result.as_str(), "" | "success");
        match active {
            ActiveState::Activating => {
                if self.state != State::Running {
                    self.since_usec = if of_this_run { self.seen.started_usec } else { now };
                    self.status.clear();
                }
                self.state = State::Running;
            }
            ActiveState::Active | ActiveState::Reloading | ActiveState::Refreshing => {
                self.work_ended();
                self.state = State::Done;
            }
            ActiveState::Deactivating if phase == Phase::Closing => {}
            ActiveState::Deactivating => {
                if !matches!(self.state, State::Undoing) {
                    self.since_usec = now;
                }
                if bad && self.state != State::Undoing {
                    self.work_ended();
                    self.fail();
                }
                self.state = State::Undoing;
            }
            ActiveState::Failed => {
                // Also when its process has begun: systemd may tell of that first, and of the unit after.
                let runs = self.seen.exited_usec < self.seen.started_usec;
                if self.state == State::Waiting && (!of_this_run || runs) {
                    return;
                }
                if self.state != State::Undoing {
                    self.work_ended();
                    self.fail();
                }
                self.undo_ended(now);
                self.state = State::Failed;
            }
            ActiveState::Inactive => match (self.state, phase) {
                (State::Waiting | State::Failed | State::Undone, _) => {}
                (_, Phase::Closing) => {
                    self.work_ended();
                    self.state = State::Done;
                }
                _ => {
                    self.undo_ended(now);
                    self.state = State::Undone;
                }
            },
            ActiveState::Maintenance | ActiveState::Other(_) => {}
        }
    }

    fn fail(&mut self) {
        const EXITED: i32 = 1;
        let exit_status =
            (self.seen.code == EXITED && self.seen.exited_usec != 0).then_some(self.seen.status);
        // Its work was done: what failed is what restores.
        if exit_status != Some(0) {
            self.failed = true;
            self.exit_status = exit_status;
        }
    }

    fn work_ended(&mut self) {
        let UnitState { started_usec, exited_usec, .. } = self.seen;
        if self.seconds.is_none() && started_usec != 0 && exited_usec >= started_usec {
            self.seconds = Some((exited_usec - started_usec) as f64 / 1e6);
        }
    }

    fn undo_ended(&mut self, now: u64) {
        if self.state == State::Undoing && self.undo_seconds.is_none() {
            self.undo_seconds = Some(self.elapsed(now));
        }
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
