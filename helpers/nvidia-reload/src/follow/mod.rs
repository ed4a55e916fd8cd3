// SPDX-License-Identifier: MIT
//! Follows a run: what systemd reports, as typed events for the view.

mod outcome;
mod progress;

use std::time::{Duration, Instant};

use bus::{ActiveState, Error, Event as BusEvent, Follower, Job, JobResult, Manager, Service};
use ledger::Step;
use step::{Plan, Root, monotonic_usec};

pub use outcome::{Facts, Goal, outcome};
pub use progress::{Change, Phase, Progress, State, StepProgress};

use crate::interrupt::Interrupt;
use crate::kind::Kind;
use crate::plan::Proposal;
use crate::status::our_units;

/// How often a view of the run may move its clocks.
const TICK: Duration = Duration::from_millis(100);

/// Longer than all steps together may take by their units: only if systemd itself stands still
/// does it come to this.
const LIMIT: Duration = Duration::from_secs(13 * 60 * 60);

/// What is shown of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The run was under way already: this command only looks on.
    Joined,
    /// An earlier run has not ended; ours begins after it.
    Queued,
    /// Preflight made the plan, which is not the one that was `shown` before, if one was.
    Planned {
        /// The plan.
        plan: Box<Proposal>,
        /// Whether another was shown before.
        changed: bool,
    },
    /// A step's state changed.
    Step(StepProgress),
    /// A step says something.
    Status(StepProgress),
    /// The work failed or was cancelled: from here on the steps roll back.
    RollingBack,
}

/// A view of a run.
pub trait Sink {
    /// Something happened; `progress` is how things stand after it.
    fn event(&mut self, event: &Event, progress: &Progress, now_usec: u64);

    /// Nothing happened for a moment.
    fn tick(&mut self, progress: &Progress, now_usec: u64);

    /// The command does not wait any more.
    fn end(&mut self, progress: &Progress, now_usec: u64);
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait<T> {
    /// With what was waited for.
    For(T),
    /// This command got a signal to end.
    Interrupted,
    /// Not in time.
    Late,
}

/// Where the plan of a run is, and what the reader knows of it.
pub struct PlanOfRun<'a> {
    /// Where the file system starts.
    pub root: &'a Root,
    /// What the plan is of.
    pub command: Kind,
    /// The run's plan was made after this moment of CLOCK_MONOTONIC.
    pub since_usec: u64,
    /// What was shown before anything began.
    pub shown: Option<&'a Proposal>,
}

impl PlanOfRun<'_> {
    /// What is to be shown; nothing where the reader knows it.
    fn news(&self) -> Option<Event> {
        // That it cannot be read is no reason to stop looking on; its steps say what they do.
        let plan = Plan::of_run(self.root, self.since_usec).ok().flatten()?;
        let plan = Proposal::new(self.root, self.command, plan);
        let stopped = |proposal: &Proposal| -> Vec<(Step, String)> {
            proposal.plan.actions.iter().map(|action| (action.step, action.object.clone())).collect()
        };
        let changed = self.shown.is_some();
        let is_known = self.shown.is_some_and(|shown| stopped(shown) == stopped(&plan));
        (!is_known).then(|| Event::Planned { plan: Box::new(plan), changed })
    }
}

/// A run that is looked at.
pub struct Session<'a> {
    follower: Follower,
    /// How far it is.
    pub progress: Progress,
    sink: &'a mut dyn Sink,
    interrupt: &'a Interrupt,
    plan: Option<PlanOfRun<'a>>,
}

impl<'a> Session<'a> {
    /// Begins to look at `steps`, and at the unit that ends a failed run. What they did before
    /// `since_usec` belongs to an earlier run.
    ///
    /// # Errors
    /// systemd does not answer.
    pub fn open(
        manager: &Manager,
        steps: &[Step],
        phase: Phase,
        since_usec: u64,
        sink: &'a mut dyn Sink,
        interrupt: &'a Interrupt,
    ) -> Result<Self, Error> {
        let mut steps = steps.to_vec();
        steps.push(Step::Rollback);
        let units: Vec<String> = steps.iter().map(|step| step.unit()).collect();
        let units: Vec<&str> = units.iter().map(String::as_str).collect();
        // The signals first, the state after: what changes in between is seen twice, not never.
        let follower = manager.follow(&units)?;
        let mut session = Self {
            follower,
            progress: Progress::new(&steps, phase, since_usec),
            sink,
            interrupt,
            plan: None,
        };
        session.read(|_, _, _| {})?;
        Ok(session)
    }

    /// Queues the start of `unit`; if it is queued already, it is the same job.
    ///
    /// # Errors
    /// systemd refuses.
    pub fn start(&self, unit: &str) -> Result<Job, Error> {
        self.follower.start(unit)
    }

    /// Queues the stop of `unit`.
    ///
    /// # Errors
    /// systemd refuses.
    pub fn stop(&self, unit: &str) -> Result<Job, Error> {
        self.follower.stop(unit)
    }

    /// Tells `event`.
    pub fn tell(&mut self, event: &Event) {
        self.sink.event(event, &self.progress, monotonic_usec());
    }

    /// Shows the plan too, as soon as there is one.
    pub fn shows(&mut self, plan: PlanOfRun<'a>) {
        self.plan = Some(plan);
    }

    /// Shows the plan of the run, which preflight has made; once.
    pub fn show_plan(&mut self) {
        if let Some(event) = self.plan.take().and_then(|plan| plan.news()) {
            self.tell(&event);
        }
    }

    /// What was seen so far was an earlier run.
    pub fn restart(&mut self) {
        self.progress.restart(monotonic_usec());
    }

    /// The command does not wait any more: how far the steps are.
    pub fn end(self) -> Progress {
        self.sink.end(&self.progress, monotonic_usec());
        self.progress
    }

    /// From here on the steps roll back, or (`Closing`) only end.
    pub fn enter(&mut self, phase: Phase) {
        self.progress.phase = phase;
        if phase == Phase::RollingBack {
            self.tell(&Event::RollingBack);
        }
    }

    /// Waits for the end of `job`.
    ///
    /// # Errors
    /// systemd is out of reach.
    pub fn wait(&mut self, job: &Job) -> Result<Wait<JobResult>, Error> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if self.interrupt.happened() {
                return Ok(Wait::Interrupted);
            }
            match self.next()? {
                Some(BusEvent::JobEnded { job: ended, result }) if ended.path == job.path => {
                    return Ok(Wait::For(result));
                }
                Some(BusEvent::Missed) => {
                    self.look()?;
                    if let Some(result) = self.follower.look_for(job)? {
                        return Ok(Wait::For(result));
                    }
                }
                _ => {}
            }
        }
        Ok(Wait::Late)
    }

    /// Waits until no step is up but those of `staying`, and none of their units is about to be
    /// started: then what is read is the final state. Late is also where nothing changes any more: a target holds
    /// the others.
    ///
    /// # Errors
    /// systemd is out of reach.
    pub fn settle(&mut self, staying: &[Step]) -> Result<Wait<()>, Error> {
        let deadline = Instant::now() + LIMIT;
        let mut was_still = false;
        while Instant::now() < deadline {
            if self.interrupt.happened() {
                return Ok(Wait::Interrupted);
            }
            if self.progress.is_settled(staying) && !self.is_queued()? {
                return Ok(Wait::For(()));
            }
            match self.next()? {
                Some(BusEvent::Missed) => {
                    self.look()?;
                    // Once may be between two steps.
                    let is_still = self.is_still()?;
                    if is_still && was_still && !self.progress.is_settled(staying) {
                        return Ok(Wait::Late);
                    }
                    was_still = is_still;
                }
                Some(_) => was_still = false,
                None => {}
            }
        }
        Ok(Wait::Late)
    }

    /// Whether systemd has a job for one of the steps.
    fn is_queued(&self) -> Result<bool, Error> {
        let jobs = self.follower.manager().jobs()?;
        Ok(jobs.iter().any(|job| self.progress.step(&job.unit).is_some()))
    }

    /// Whether none of our units changes or is about to, those of other targets included.
    fn is_still(&self) -> Result<bool, Error> {
        let manager = self.follower.manager();
        let units = our_units(manager)?;
        let is_at_rest = |state: &ActiveState| {
            matches!(state, ActiveState::Active | ActiveState::Inactive | ActiveState::Failed)
        };
        Ok(units.values().all(is_at_rest) && !manager.jobs()?.iter().any(|job| units.contains_key(&job.unit)))
    }

    /// Passes on the next thing seen.
    fn next(&mut self) -> Result<Option<BusEvent>, Error> {
        let seen = self.follower.next(Instant::now() + TICK)?;
        match &seen {
            Some(BusEvent::UnitChanged { unit, change }) => {
                let change = self.progress.change(unit, change, monotonic_usec());
                self.apply(unit, change);
            }
            Some(BusEvent::JobEnded {
                job,
                result: JobResult::Failed | JobResult::Timeout | JobResult::Assert,
            }) => {
                let change = self.progress.job_failed(&job.unit);
                self.apply(&job.unit, change);
            }
            Some(_) => {}
            None => self.sink.tick(&self.progress, monotonic_usec()),
        }
        Ok(seen)
    }

    fn apply(&mut self, unit: &str, change: Change) {
        let Some(step) = self.progress.step(unit) else { return };
        let event = match change {
            Change::None => return,
            Change::Status => Event::Status(step.clone()),
            Change::State => Event::Step(step.clone()),
        };
        let is_planned = step.step == Step::Preflight && step.state == State::Done;
        self.tell(&event);
        if is_planned {
            self.show_plan();
        }
    }

    /// Reads the state of all units, and tells what is new.
    fn look(&mut self) -> Result<(), Error> {
        self.read(Self::apply)
    }

    fn read(&mut self, mut tell: impl FnMut(&mut Self, &str, Change)) -> Result<(), Error> {
        let units: Vec<String> = self.progress.steps.iter().map(|step| step.step.unit()).collect();
        let names: Vec<&str> = units.iter().map(String::as_str).collect();
        let loaded = self.follower.manager().units(&names)?;
        for unit in &units {
            let manager = self.follower.manager();
            // Each question about a unit that is not loaded has systemd load it, with all that it requires,
            // let go of it again, and tell of both: for the steps at rest, thousands of messages.
            let (active, service) = match loaded.iter().any(|listed| listed.name == *unit) {
                true => (manager.unit(unit)?.active, manager.service(unit)?),
                false => (ActiveState::Inactive, Service::default()),
            };
            let change = self.progress.look(unit, active, &service, monotonic_usec());
            tell(self, unit, change);
        }
        Ok(())
    }
}
