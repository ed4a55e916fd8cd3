// SPDX-License-Identifier: MIT
//! Root's side.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, Permissions, remove_file, set_permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bounded::{Lines, peer, send};
use files::lock;
use serde::de::DeserializeOwned;
use serde_json::Value;
use step::{Order, Root, order_unit};

use crate::clean::{is_clean, short};
use crate::protocol::socket;
use crate::{Ask, Fault, LONGEST, MOST, Reply, Request};

/// How long PID 1 and the worker may take until the worker connects.
const CONNECT: Duration = Duration::from_secs(20);

/// How long another conversation with the same user may last before this one is given up.
const OTHERS: Duration = Duration::from_secs(30);

/// How long the worker may take for what it does at the end.
const BYE: Duration = Duration::from_secs(5);

/// Why a user's side did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such unit, no such container.
    #[error("there is no such thing")]
    Gone,
    /// The user's manager or Podman said no.
    #[error("{1}")]
    Refused(u16, String),
    /// The user's manager or Podman does not answer the worker, or something else went wrong there.
    #[error("{0}")]
    Failed(String),
    /// The conversation is over, or never began.
    #[error("user {uid}: {reason}")]
    Over {
        /// The user.
        uid: u32,
        /// Why.
        reason: String,
    },
}

type Waiting = HashMap<u64, Sender<Result<Value, Fault>>>;

/// A conversation with a user's worker. Ends with the last clone.
#[derive(Debug, Clone)]
pub struct Agent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    uid: u32,
    until: Instant,
    stream: UnixStream,
    next: AtomicU64,
    state: Arc<Mutex<State>>,
    /// Until the worker has ended, no other is started.
    _lock: Option<File>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Waiting,
    /// Why nothing more is said.
    over: Option<String>,
}

impl Agent {
    /// Has PID 1 start the worker of `uid` and waits for it. The conversation lasts for `budget` at most.
    ///
    /// # Errors
    /// It does not come.
    pub fn open(root: &Root, uid: u32, budget: Duration) -> Result<Self, Error> {
        let over = |what: &str, error: io::Error| {
            let reason = match error.kind() {
                io::ErrorKind::TimedOut => format!("{what}: it takes too long"),
                _ => format!("{what}: {error}"),
            };
            Error::Over { uid, reason }
        };
        if !root.is_system() {
            return Err(Error::Over { uid, reason: "this is no running machine".into() });
        }
        let (lock, listener) =
            listen(root, uid).map_err(|error| over("prepare to ask as the user", error))?;
        // Restarted, not started: one that is about to end would be taken for this one's.
        let unit = format!("nvidia-reload-user@{uid}.service");
        match order_unit(Order::Renew, &unit) {
            Ok(true) => {}
            Ok(false) => return Err(Error::Over { uid, reason: format!("there is no {unit}") }),
            Err(error) => return Err(over("start the worker", error)),
        }
        let deadline = Instant::now() + CONNECT.min(budget);
        let stream = accept(&listener, uid, deadline).map_err(|error| over("wait for the worker", error));
        // Nothing else uses it. It is replaced before the next.
        let _ = remove_file(root.path(socket(uid)));
        Self::start(stream?, uid, budget, Some(lock)).map_err(|error| over("speak with the worker", error))
    }

    /// A conversation over `stream`, for tests.
    ///
    /// # Errors
    /// The kernel's.
    pub fn over(stream: UnixStream, uid: u32, budget: Duration) -> io::Result<Self> {
        Self::start(stream, uid, budget, None)
    }

    fn start(stream: UnixStream, uid: u32, budget: Duration, lock: Option<File>) -> io::Result<Self> {
        let until = Instant::now() + budget;
        let state = Arc::<Mutex<State>>::default();
        let (reader, shared) = (stream.try_clone()?, state.clone());
        thread::Builder::new().spawn(move || read(reader, until, &shared))?;
        Ok(Self(Arc::new(Inner { uid, until, stream, next: AtomicU64::new(0), state, _lock: lock })))
    }

    /// The user.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// What the worker answers, at most `patience` later.
    ///
    /// # Errors
    /// See [`Error`]. An answer that is not understood ends the conversation.
    pub fn ask<T: DeserializeOwned>(&self, ask: Ask, patience: Duration) -> Result<T, Error> {
        self.0.ask(ask, patience)
    }
}

impl Inner {
    fn ask<T: DeserializeOwned>(&self, ask: Ask, patience: Duration) -> Result<T, Error> {
        let deadline = self.until.min(Instant::now() + patience);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut line =
            serde_json::to_vec(&Request { id, ask }).map_err(|error| self.end(&error.to_string()))?;
        line.push(b'\n');
        let (sender, receiver) = mpsc::channel();
        {
            let mut state = locked(&self.state);
            if let Some(reason) = &state.over {
                return Err(Error::Over { uid: self.uid, reason: reason.clone() });
            }
            state.waiting.insert(id, sender);
            // Under the lock: lines of several threads do not mix.
            if let Err(error) = send(&self.stream, &line, deadline) {
                drop(state);
                return Err(self.end(&format!("its side does not listen: {error}")));
            }
        }
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(value)) => serde_json::from_value(value)
                .map_err(|error| self.end(&format!("its side answers what was not asked: {error}"))),
            Ok(Err(fault)) => Err(match fault {
                Fault::Gone => Error::Gone,
                Fault::Refused(status, message) => Error::Refused(status, short(&message)),
                Fault::Unreachable(reason) | Fault::Other(reason) => Error::Failed(short(&reason)),
            }),
            Err(RecvTimeoutError::Timeout) => {
                Err(self.end(&format!("its side does not answer within {} s", patience.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let reason = locked(&self.state).over.clone().unwrap_or_default();
                Err(Error::Over { uid: self.uid, reason })
            }
        }
    }

    /// Ends the conversation.
    fn end(&self, reason: &str) -> Error {
        let reason = end(&self.state, &self.stream, reason);
        Error::Over { uid: self.uid, reason }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if locked(&self.state).over.is_none() {
            // The end comes in any case: the socket is closed.
            let _: Result<Value, Error> = self.ask(Ask::Bye, BYE);
        }
        let _ = end(&self.state, &self.stream, "the conversation is over");
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No thread panics while it holds the lock; and the state is whole at each moment.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the conversation for the first reason that there is, and returns that.
fn end(state: &Mutex<State>, stream: &UnixStream, reason: &str) -> String {
    let mut state = locked(state);
    let reason = state.over.get_or_insert_with(|| short(reason)).clone();
    state.waiting.clear();
    // It may be closed from the other side.
    let _ = stream.shutdown(std::net::Shutdown::Both);
    reason
}

/// Hands each answer to what waits for it, until the conversation ends.
fn read(stream: UnixStream, until: Instant, state: &Mutex<State>) {
    let closer = stream.try_clone();
    let mut lines = Lines::new(stream, LONGEST, MOST);
    let reason = loop {
        let line = match lines.next(until) {
            Ok(Some(line)) => line,
            Ok(None) => break "its worker has exited".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => break "it takes too long".to_owned(),
            Err(error) => break format!("its worker broke the protocol: {error}"),
        };
        let Ok(reply) = serde_json::from_slice::<Reply>(&line) else {
            break "its worker broke the protocol: that is no answer".to_owned();
        };
        if !reply.result.as_ref().map_or(true, is_clean) {
            break "its worker broke the protocol: a control character in an answer".to_owned();
        }
        match locked(state).waiting.remove(&reply.id) {
            // Who asked may have given up.
            Some(asker) => _ = asker.send(reply.result),
            None => break "its worker broke the protocol: an answer without a request".to_owned(),
        }
    };
    if let Ok(stream) = closer {
        end(state, &stream, &reason);
    }
}

/// The lock on conversations with this user, and a socket that the user, and no other, can connect to.
fn listen(root: &Root, uid: u32) -> io::Result<(File, UnixListener)> {
    let path = root.path(socket(uid));
    if let Some(folder) = path.parent() {
        match DirBuilder::new().mode(0o711).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            // Whatever the umask has made of it.
            _ => set_permissions(folder, Permissions::from_mode(0o711))?,
        }
    }
    let file = lock(&path.with_extension("lock"), OTHERS, |_| ()).map_err(io::Error::other)?;
    files::remove(&path)?;
    let listener = UnixListener::bind(&path)?;
    set_permissions(&path, Permissions::from_mode(0o600))?;
    chown(&path, Some(uid), None)?;
    listener.set_nonblocking(true)?;
    Ok((file, listener))
}

/// The first connection of a process of the user's.
fn accept(listener: &UnixListener, uid: u32, deadline: Instant) -> io::Result<UnixStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) if peer(&stream)? == uid => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            // Root's own capabilities would let it in.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
