// SPDX-License-Identifier: MIT
//! The user's Podman.
//!
//! It has no daemon, and `podman.socket` of a user is off on many machines. The user's manager starts it
//! for the conversation and stops it afterwards: the service behind it, and the containers that it starts,
//! live where the user's own would.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use as_user::{Bundle, Fault};
use bus::{LoadState, Manager, Mode};
use engines::{Client, Error, Inspect, Kind, wait_for};
use step::Root;

const SOCKET: &str = "podman.socket";

/// How long the start of the socket may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long Podman may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// What a container is asked for by its variables.
const VARIABLES: [&str; 2] = ["NVIDIA_", "CUDA_"];

pub(crate) struct Podman {
    uid: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reached: bool,
    /// The socket was started for this conversation.
    offered: bool,
}

impl Podman {
    pub(crate) fn new(uid: u32) -> Self {
        Self { uid, state: Mutex::default() }
    }

    pub(crate) fn containers(&self) -> Result<Vec<String>, Fault> {
        self.ask(async |client| client.up().await)
    }

    pub(crate) fn inspect(&self, id: &str) -> Result<Inspect, Fault> {
        let mut container = self.ask(async |client| client.inspect(id).await)?;
        if let Some(variables) = container.config.as_mut().and_then(|config| config.env.as_mut()) {
            variables.retain(|variable| VARIABLES.iter().any(|prefix| variable.starts_with(prefix)));
        }
        Ok(container)
    }

    pub(crate) fn stop(&self, id: &str, grace: Duration) -> Result<(), Fault> {
        self.ask(async |client| client.stop(id, grace).await)
    }

    pub(crate) fn start(&self, id: &str) -> Result<(), Fault> {
        self.ask(async |client| client.start(id).await)
    }

    pub(crate) fn pause(&self, id: &str) -> Result<(), Fault> {
        self.ask(async |client| client.pause(id).await)
    }

    pub(crate) fn unpause(&self, id: &str) -> Result<(), Fault> {
        self.ask(async |client| client.unpause(id).await)
    }

    /// Stops the socket, if it was started for the conversation.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        if !std::mem::take(&mut state.offered) {
            return;
        }
        // Left on, it would cost nothing but be somebody's surprise.
        if let Err(error) = Manager::user(self.uid).and_then(|manager| manager.stop(SOCKET, Mode::Replace)) {
            eprintln!("{SOCKET} stays on: {error}");
        }
    }

    fn ask<T>(&self, question: impl AsyncFnOnce(Client) -> Result<T, Error>) -> Result<T, Fault> {
        let path = self.reach()?;
        let client = Client::new(&Root::system(), Kind::Podman, &path).map_err(fault)?;
        let answer = wait_for(question(client)).map_err(|error| Fault::Other(error.to_string()))?;
        answer.map_err(fault)
    }

    /// The path of the socket, on which something listens.
    fn reach(&self) -> Result<String, Fault> {
        let path = format!("/run/user/{}/podman/podman.sock", self.uid);
        let connect = || {
            let stream = bounded::connect(path.as_ref(), Instant::now() + CONNECT)?;
            // A link may lead to another's.
            match bounded::peer(&stream)? == self.uid {
                true => Ok(()),
                false => Err(std::io::Error::other("what listens there does not run as this user")),
            }
        };
        let mut state = self.state();
        if state.reached {
            return Ok(path);
        }
        if let Err(error) = connect() {
            if error.kind() == std::io::ErrorKind::TimedOut || !self.offer(&mut state)? {
                return Err(Fault::Unreachable(format!("connect to {path}: {error}")));
            }
            connect().map_err(|error| Fault::Unreachable(format!("connect to {path}: {error}")))?;
        }
        state.reached = true;
        Ok(path)
    }

    /// Starts the socket; false if there is none to start.
    fn offer(&self, state: &mut State) -> Result<bool, Fault> {
        let failed = |error: bus::Error| Fault::Unreachable(format!("start {SOCKET}: {error}"));
        let manager = Manager::user(self.uid).map_err(failed)?;
        if manager.unit(SOCKET).map_err(failed)?.load != LoadState::Loaded {
            return Ok(false);
        }
        let mut follower = manager.follow(&[]).map_err(failed)?;
        let job = follower.start(SOCKET).map_err(failed)?;
        state.offered = true;
        let result = follower.wait(&job, Instant::now() + PATIENCE).map_err(failed)?;
        match result.is_success() {
            true => Ok(true),
            false => Err(Fault::Unreachable(format!("the start of {SOCKET} ended with {result}"))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device nodes of a bundle.
pub(crate) fn bundle(directory: &str) -> Bundle {
    let nodes = engines::mounted(&Root::system(), directory);
    Bundle { nodes: nodes.into_iter().map(|(path, (major, minor))| (path, major, minor)).collect() }
}

fn fault(error: Error) -> Fault {
    match error {
        Error::Gone => Fault::Gone,
        Error::Refused { status, message } => Fault::Refused(status, message),
        Error::Unreachable { reason, .. } => Fault::Unreachable(reason),
        error => Fault::Other(error.to_string()),
    }
}
