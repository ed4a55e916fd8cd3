// SPDX-License-Identifier: MIT
//! The worker that PID 1 starts as a user, in `nvidia-reload-user@UID.service`, when a step needs the user's manager or
//! Podman. The crate `as-user` describes the whole.
//!
//! It starts no program and no workload itself: it gives orders to the user's manager and Podman, by their sockets, with
//! the rights of the user. It exits with the conversation.

#![forbid(unsafe_code)]

mod podman;
mod transient;
mod units;

use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use as_user::{Ask, Fault, LONGEST, Reply, Request, clean, socket};
use bounded::{Lines, send};
use serde_json::Value;

use podman::Podman;

/// How long root may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Root asks no longer than that; the unit has a limit of its own.
const LONG: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        bail!("this is for users: root has its own manager and its own Podman");
    }
    let path = socket(uid.as_raw());
    let stream = bounded::connect(&path, Instant::now() + PATIENCE)
        .with_context(|| format!("connect to {}: a step of nvidia-reload listens there", path.display()))?;
    let podman = Arc::new(Podman::new(uid.as_raw()));
    let result = converse(stream, uid.as_raw(), &podman);
    podman.end();
    result
}

/// Answers until root hangs up. Each request has a thread of its own: a slow one holds up no other.
fn converse(stream: UnixStream, uid: u32, podman: &Arc<Podman>) -> Result<()> {
    let answers = Arc::new(Mutex::new(stream.try_clone()?));
    let mut lines = Lines::new(stream, LONGEST, usize::MAX);
    while let Some(line) = lines.next(Instant::now() + LONG)? {
        let Request { id, ask } = serde_json::from_slice(&line).context("understand root's request")?;
        let (answers, podman) = (answers.clone(), podman.clone());
        thread::Builder::new().spawn(move || {
            let result = answer(ask, uid, &podman).map(clean);
            let result = result.map_err(|fault| match fault {
                Fault::Refused(status, text) => Fault::Refused(status, plain(&text)),
                Fault::Unreachable(text) => Fault::Unreachable(plain(&text)),
                Fault::Other(text) => Fault::Other(plain(&text)),
                Fault::Gone => Fault::Gone,
            });
            // Root has hung up otherwise, and the conversation ends.
            let _ = reply(&answers, Reply { id, result });
        })?;
    }
    Ok(())
}

fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn reply(answers: &Mutex<UnixStream>, reply: Reply) -> Result<()> {
    let mut line = serde_json::to_vec(&reply)?;
    if line.len() >= LONGEST {
        let result = Err(Fault::Other("the answer is too long".into()));
        line = serde_json::to_vec(&Reply { id: reply.id, result })?;
    }
    line.push(b'\n');
    let stream = answers.lock().unwrap_or_else(PoisonError::into_inner);
    send(&stream, &line, Instant::now() + PATIENCE)?;
    Ok(())
}

fn answer(ask: Ask, uid: u32, podman: &Podman) -> Result<Value, Fault> {
    match ask {
        Ask::Unit { name } => value(units::unit(uid, &name)?),
        Ask::Dependents { name } => value(units::dependents(uid, &name)?),
        Ask::StopUnits { units, seconds } => value(units::stop(uid, &units, Duration::from_secs(seconds))?),
        Ask::StartUnits { names, seconds } => value(units::start(uid, &names, Duration::from_secs(seconds))?),
        Ask::Containers => value(podman.containers()?),
        Ask::Inspect { id } => value(podman.inspect(&id)?),
        Ask::Bundle { directory } => value(podman::bundle(&directory)),
        Ask::StopContainer { id, seconds } => value(podman.stop(&id, Duration::from_secs(seconds))?),
        Ask::StartContainer { id } => value(podman.start(&id)?),
        Ask::Pause { id } => value(podman.pause(&id)?),
        Ask::Unpause { id } => value(podman.unpause(&id)?),
        Ask::Bye => {
            podman.end();
            Ok(Value::Null)
        }
    }
}

fn value(answer: impl serde::Serialize) -> Result<Value, Fault> {
    serde_json::to_value(answer).map_err(|error| Fault::Other(error.to_string()))
}
