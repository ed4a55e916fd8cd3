//! Jobs followed to their end.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Job, JobResult, Manager, Mode, Signal, Signals};

/// How often a manager that is out of reach is looked for: it is back within seconds, when it has
/// executed itself anew.
const RETRY: Duration = Duration::from_millis(100);

/// How long a signal that was sent before the answer to a question may be behind it.
const SETTLE: Duration = Duration::from_millis(200);

/// Queues jobs and waits for their ends. The signals are listened to before the first job is
/// queued, so that no end is missed, however short the job.
#[derive(Debug)]
pub struct Follower {
    manager: Manager,
    signals: Signals,
    ended: HashMap<String, JobResult>,
}

impl Follower {
    pub(crate) fn new(manager: Manager) -> Result<Self, Error> {
        let signals = manager.signals(&[])?;
        Ok(Self { manager, signals, ended: HashMap::new() })
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
            match self.signals.next(deadline) {
                Some(Signal::JobRemoved { job: ended, result }) => {
                    self.ended.insert(ended.path, result);
                }
                Some(Signal::Reloading(false)) => self.look_anew(job)?,
                Some(Signal::Lost) => {
                    self.reconnect(deadline)?;
                    self.look_anew(job)?;
                }
                Some(Signal::Reloading(true) | Signal::UnitChanged { .. }) => {}
                None => {
                    let what = format!("{} {}", job.kind, job.unit);
                    return Err(Error::Deadline { what, waited: began.elapsed() });
                }
            }
        }
    }

    /// Notes `job` as ended unseen if it is in the queue no more and its end does not follow.
    fn look_anew(&mut self, job: &Job) -> Result<(), Error> {
        if self.manager.jobs()?.iter().any(|queued| queued.path == job.path) {
            return Ok(());
        }
        let deadline = Instant::now() + SETTLE;
        while !self.ended.contains_key(&job.path) {
            match self.signals.next(deadline) {
                Some(Signal::JobRemoved { job: ended, result }) => {
                    self.ended.insert(ended.path, result);
                }
                Some(Signal::Lost) | None => {
                    self.ended.insert(job.path.clone(), JobResult::Unseen);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn reconnect(&mut self, deadline: Instant) -> Result<(), Error> {
        loop {
            match self.manager.reconnect().and_then(|manager| Ok((manager.signals(&[])?, manager))) {
                Ok((signals, manager)) => {
                    self.signals = signals;
                    self.manager = manager;
                    return Ok(());
                }
                Err(error) if error.is_disconnect() && Instant::now() + RETRY < deadline => {
                    thread::sleep(RETRY)
                }
                Err(error) => return Err(error),
            }
        }
    }
}
