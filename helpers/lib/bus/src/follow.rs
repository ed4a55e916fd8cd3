// SPDX-License-Identifier: MIT
//! Jobs followed to their end.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::signals::{Signal, Signals};
use crate::{Error, Job, JobResult, Manager, Mode, UnitChange};

/// How often a manager that is out of reach is looked for.
const RETRY: Duration = Duration::from_millis(100);

/// For how long. A manager that re-executes itself is back within seconds.
const ABSENCE: Duration = Duration::from_secs(30);

/// How long a signal that was sent before the answer to a question may be behind it.
const SETTLE: Duration = Duration::from_millis(200);

/// After how long a silence the state is read, without a signal that says so: what waits for a job must not wait for
/// ever for a message that does not come.
const SILENCE: Duration = Duration::from_secs(10);

/// Something that a follower saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A job ended.
    JobEnded {
        /// Which.
        job: Job,
        /// How.
        result: JobResult,
    },
    /// One of the units changed.
    UnitChanged {
        /// Which.
        unit: String,
        /// What of it.
        change: Box<UnitChange>,
    },
    /// Something may have been missed: read the state of what matters.
    Missed,
}

impl Manager {
    /// Follows jobs to their end, and what becomes of `units`: open it before the first job is
    /// queued.
    ///
    /// # Errors
    /// The manager does not answer.
    pub fn follow(&self, units: &[&str]) -> Result<Follower, Error> {
        Follower::new(self.clone(), units)
    }
}

/// Queues jobs and follows them. The signals are listened to before the first job is queued, so
/// that no end is missed, however short the job.
#[derive(Debug)]
pub struct Follower {
    manager: Manager,
    signals: Signals,
    units: Vec<String>,
    ended: HashMap<String, JobResult>,
    /// When something came last, or the state was read without that.
    heard: Instant,
    pub(crate) silence: Duration,
}

impl Follower {
    pub(crate) fn new(manager: Manager, units: &[&str]) -> Result<Self, Error> {
        let signals = manager.signals(units)?;
        let units = units.iter().map(|unit| (*unit).to_owned()).collect();
        let (ended, heard) = (HashMap::new(), Instant::now());
        Ok(Self { manager, signals, units, ended, heard, silence: SILENCE })
    }

    /// The manager, for questions in between. After a reconnection it is the new one.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Queues the start of `unit`.
    ///
    /// # Errors
    /// There is no such unit, or the manager refuses.
    pub fn start(&self, unit: &str) -> Result<Job, Error> {
        self.manager.start(unit, Mode::Replace)
    }

    /// Queues the stop of `unit`.
    ///
    /// # Errors
    /// There is no such unit, or the manager refuses.
    pub fn stop(&self, unit: &str) -> Result<Job, Error> {
        self.manager.stop(unit, Mode::Replace)
    }

    /// What happens next; none when `deadline` comes first.
    ///
    /// # Errors
    /// The connection was lost and the manager stayed out of reach.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<Event>, Error> {
        loop {
            let patience = deadline.min(self.heard + self.silence);
            let signal = self.signals.next(patience);
            if signal.is_some() || patience < deadline {
                self.heard = Instant::now();
            }
            match signal {
                Some(Signal::JobRemoved { job, result }) => return Ok(Some(Event::JobEnded { job, result })),
                Some(Signal::UnitChanged { unit, change }) => {
                    return Ok(Some(Event::UnitChanged { unit, change }));
                }
                Some(Signal::Reloading(true)) => {}
                Some(Signal::Reloading(false)) => return Ok(Some(Event::Missed)),
                Some(Signal::Lost) => {
                    self.reconnect()?;
                    return Ok(Some(Event::Missed));
                }
                None if patience < deadline => return Ok(Some(Event::Missed)),
                None => return Ok(None),
            }
        }
    }

    /// Waits until `job` has ended; many jobs may be waited for one after the other, in any order.
    ///
    /// # Errors
    /// The deadline came first (the job goes on in systemd), or the manager stayed out of reach.
    pub fn wait(&mut self, job: &Job, deadline: Instant) -> Result<JobResult, Error> {
        let began = Instant::now();
        loop {
            if let Some(result) = self.ended.remove(&job.path) {
                return Ok(result);
            }
            match self.next(deadline)? {
                Some(Event::JobEnded { job: ended, result }) => {
                    self.ended.insert(ended.path, result);
                }
                Some(Event::UnitChanged { .. }) => {}
                Some(Event::Missed) => {
                    if let Some(result) = self.look_for(job)? {
                        return Ok(result);
                    }
                }
                None => {
                    let what = format!("the job to {} {}", job.kind, job.unit);
                    return Err(Error::Deadline { what, waited: began.elapsed() });
                }
            }
        }
    }

    /// After [`Event::Missed`]: how `job` ended, if it is in the queue no more.
    ///
    /// # Errors
    /// The manager does not answer.
    pub fn look_for(&mut self, job: &Job) -> Result<Option<JobResult>, Error> {
        if self.manager.jobs()?.iter().any(|queued| queued.path == job.path) {
            return Ok(None);
        }
        // Its own signal may still be on the way here, and says more.
        let deadline = Instant::now() + SETTLE;
        while let Some(signal) = self.signals.next(deadline) {
            match signal {
                Signal::JobRemoved { job: ended, result } if ended.path == job.path => {
                    return Ok(Some(result));
                }
                Signal::JobRemoved { job: ended, result } => {
                    self.ended.insert(ended.path, result);
                }
                Signal::Lost => break,
                _ => {}
            }
        }
        Ok(Some(self.ended.remove(&job.path).unwrap_or(JobResult::Unseen)))
    }

    fn reconnect(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + ABSENCE;
        let units: Vec<&str> = self.units.iter().map(String::as_str).collect();
        loop {
            match self.manager.reconnect().and_then(|manager| Ok((manager.signals(&units)?, manager))) {
                Ok((signals, manager)) => {
                    self.signals = signals;
                    self.manager = manager;
                    return Ok(());
                }
                Err(error) if error.is_disconnect() && Instant::now() < deadline => thread::sleep(RETRY),
                Err(error) => return Err(error),
            }
        }
    }
}
