// SPDX-License-Identifier: MIT
//! What a manager says by itself, in the order in which it says it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use futures_core::Stream;
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant};

use crate::connect::wait;
use crate::{ActiveState, Error, Job, JobResult, Manager};

/// How long after a deadline the queue is still read.
const SETTLE: Duration = Duration::from_millis(200);

impl Manager {
    /// What happens from now on, of jobs and of `units`.
    pub(crate) fn signals(&self, units: &[&str]) -> Result<Signals, Error> {
        let paths: Vec<_> =
            units.iter().map(|unit| (crate::manager::path_of(unit), (*unit).to_owned())).collect();
        Signals::open(self, &paths)
    }
}

/// What changed of a unit; none for what did not. The fields are those of [`Unit`] and [`Service`].
///
/// [`Unit`]: crate::Unit
/// [`Service`]: crate::Service
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in Unit and Service")]
pub struct UnitChange {
    pub active: Option<ActiveState>,
    pub sub: Option<String>,
    pub result: Option<String>,
    pub status_text: Option<String>,
    pub main_pid: Option<u32>,
    pub started_usec: Option<u64>,
    pub exited_usec: Option<u64>,
    pub code: Option<i32>,
    pub status: Option<i32>,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A job ended.
    JobRemoved {
        /// Which.
        job: Job,
        /// How.
        result: JobResult,
    },
    /// A unit changed. What a service has comes before what every unit has, so when the state
    /// comes, its reasons are known.
    UnitChanged {
        /// Which unit.
        unit: String,
        /// The properties that changed, of those that are looked at.
        change: Box<UnitChange>,
    },
    /// The manager begins (true) or ends a reload of its units. Signals may be missing from this
    /// time: list again what matters when it ends.
    Reloading(bool),
    /// The connection is gone, or another process took over as the manager: connect again.
    Lost,
}

/// The signals of a manager. They are queued by a thread, so none is missed between two looks.
#[derive(Debug)]
pub struct Signals {
    receiver: Receiver<Signal>,
}

impl Signals {
    /// Signals of jobs and of the units at `paths`.
    pub(crate) fn open(manager: &Manager, paths: &[(String, String)]) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel();
        // One stream without a rule keeps the order; the rules only tell a bus daemon what to
        // deliver, a manager's own socket delivers everything.
        let connection = manager.connection().clone();
        let stream = MessageStream::from(&connection);
        let units: HashMap<String, String> = paths.iter().cloned().collect();
        // Reads from the very first moment on: zbus keeps 64 messages for a stream, and then nothing comes
        // through any more, the answers to our own questions included.
        thread::spawn(move || wait(forward(stream, &units, &sender)));
        if connection.is_bus() {
            for rule in rules(paths) {
                wait(connection.call_method(
                    Some("org.freedesktop.DBus"),
                    "/org/freedesktop/DBus",
                    Some("org.freedesktop.DBus"),
                    "AddMatch",
                    &rule.to_string(),
                ))
                .map_err(|error| Error::of_call("ask the bus for systemd's signals", None, error))?;
            }
        }
        manager.subscribe()?;
        Ok(Self { receiver })
    }

    /// The next signal; none when `deadline` comes first. What waits in the queue by then is still handed
    /// out, for a moment: a manager that never stops to say things does not hold up its listener.
    pub fn next(&self, deadline: Instant) -> Option<Signal> {
        if Instant::now() > deadline + SETTLE {
            return None;
        }
        match self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(signal) => Some(signal),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Signal::Lost),
        }
    }
}

/// What a bus daemon has to deliver.
fn rules(paths: &[(String, String)]) -> Vec<MatchRule<'_>> {
    const MANAGER: &str = "org.freedesktop.systemd1.Manager";
    let rule = || MatchRule::builder().msg_type(Type::Signal);
    let mut rules = vec![
        rule().sender("org.freedesktop.systemd1").interface(MANAGER).member("JobRemoved").build(),
        rule().sender("org.freedesktop.systemd1").interface(MANAGER).member("Reloading").build(),
        rule()
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .add_arg("org.freedesktop.systemd1")
            .build(),
    ];
    for (path, _) in paths {
        rules.push(
            rule()
                .sender("org.freedesktop.systemd1")
                .interface("org.freedesktop.DBus.Properties")
                .member("PropertiesChanged")
                .path(path.as_str())
                .build(),
        );
    }
    // Made of constants and of paths that systemd itself gave.
    rules.into_iter().filter_map(Result::ok).collect()
}

/// Sends on what matters until the connection ends or nothing listens.
async fn forward(mut stream: MessageStream, units: &HashMap<String, String>, sender: &Sender<Signal>) {
    while let Some(message) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
        let Ok(message) = message else { break };
        if let Some(signal) = read(&message, units)
            && sender.send(signal).is_err()
        {
            return;
        }
    }
    let _ = sender.send(Signal::Lost);
}

/// What a message says, if it is one that matters.
fn read(message: &Message, units: &HashMap<String, String>) -> Option<Signal> {
    if message.message_type() != Type::Signal {
        return None;
    }
    let header = message.header();
    let body = message.body();
    match header.member()?.as_str() {
        "JobRemoved" => {
            let (_, path, unit, result): (u32, OwnedObjectPath, String, String) = body.deserialize().ok()?;
            let job = Job { path: path.to_string(), unit, kind: String::new() };
            Some(Signal::JobRemoved { job, result: result.into() })
        }
        "Reloading" => body.deserialize().ok().map(Signal::Reloading),
        "PropertiesChanged" => {
            let unit = units.get(header.path()?.as_str())?.clone();
            let (_, properties, _): (String, HashMap<String, OwnedVariant>, Vec<String>) =
                body.deserialize().ok()?;
            Some(Signal::UnitChanged { unit, change: Box::new(change(properties)) })
        }
        "NameOwnerChanged" => {
            let (name, ..): (String, String, String) = body.deserialize().ok()?;
            (name == "org.freedesktop.systemd1").then_some(Signal::Lost)
        }
        _ => None,
    }
}

fn change(mut properties: HashMap<String, OwnedVariant>) -> UnitChange {
    let mut take = |name: &str| properties.remove(name);
    UnitChange {
        active: take("ActiveState").and_then(|value| String::try_from(value).ok()).map(ActiveState::from),
        sub: take("SubState").and_then(|value| value.try_into().ok()),
        result: take("Result").and_then(|value| value.try_into().ok()),
        status_text: take("StatusText").and_then(|value| value.try_into().ok()),
        main_pid: take("MainPID").and_then(|value| value.try_into().ok()),
        started_usec: take("ExecMainStartTimestampMonotonic").and_then(|value| value.try_into().ok()),
        exited_usec: take("ExecMainExitTimestampMonotonic").and_then(|value| value.try_into().ok()),
        code: take("ExecMainCode").and_then(|value| value.try_into().ok()),
        status: take("ExecMainStatus").and_then(|value| value.try_into().ok()),
    }
}
