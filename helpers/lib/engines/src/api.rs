// SPDX-License-Identifier: MIT
//! One engine's API, reduced to what is asked of it here, with errors that can be acted upon.
//!
//! Orders go by bollard. Answers are read into types of ours, by the HTTP client that bollard has:
//! its own types are Docker's of today in full, which Podman's answers do not always fit (it has
//! states of its own), and they made this helper larger by a quarter.

mod orders;
mod path;
mod runtimes;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use as_user::Agent;
use bollard::Docker;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::http::request::Builder;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use hyperlocal::{UnixConnector, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use step::Root;
use tokio::time::{Instant, sleep, timeout};

use path::{percent_encoded, segment};
pub(crate) use runtimes::Runtimes;

use crate::numbers::Number;
use crate::{Definition, Error, Inspect, Kind, find, user};

/// How long an engine gets for an answer. A daemon that comes up with hundreds of containers is
/// slow; one that has hung stays silent for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an engine gets for an order, beside what the container itself may take: many at once on
/// a busy machine, each with its mounts, networks and hooks.
const ORDER: Duration = Duration::from_secs(240);

/// An engine's API.
#[derive(Debug, Clone)]
pub struct Client {
    kind: Kind,
    transport: Transport,
    away: Arc<AtomicBool>,
}

/// How an engine is spoken with.
#[derive(Debug, Clone)]
enum Transport {
    /// Over its socket.
    Socket { path: String, docker: Docker },
    /// As the user whose it is.
    User { root: Root, agent: Agent },
}

impl Client {
    /// An engine behind `socket`; connects with each request.
    ///
    /// # Errors
    /// There is no such socket.
    pub fn new(root: &Root, kind: Kind, socket: &str) -> Result<Self, Error> {
        let path = root.path(socket);
        let path = path.to_str().ok_or_else(|| Error::Odd(format!("{socket} is no text")))?;
        let docker = Docker::connect_with_unix(path, PATIENCE.as_secs(), bollard::API_DEFAULT_VERSION)
            .map_err(|error| typed(error, PATIENCE))?;
        Ok(Self {
            kind,
            transport: Transport::Socket { path: path.to_owned(), docker },
            away: Arc::default(),
        })
    }

    /// The Podman of user `uid`, which can be asked until `budget` is over.
    ///
    /// # Errors
    /// The user's side does not answer.
    pub async fn of_user(root: &Root, uid: u32, budget: Duration) -> Result<Self, Error> {
        let agent = user::open(root, uid, budget).await?;
        Ok(Self {
            kind: Kind::Podman,
            transport: Transport::User { root: root.clone(), agent },
            away: Arc::default(),
        })
    }

    /// Ends the conversation, where it is one with a user's side.
    pub async fn end(self) {
        if let Transport::User { agent, .. } = self.transport {
            user::end(agent).await;
        }
    }

    /// The device nodes of the bundle in `directory`, of a container of a user's.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn bundle(&self, directory: &str) -> Result<Vec<(String, Number)>, Error> {
        match &self.transport {
            Transport::Socket { .. } => Ok(Vec::new()),
            Transport::User { agent, .. } => user::bundle(agent, directory, PATIENCE).await,
        }
    }

    /// The engine behind a socket that takes a connection.
    ///
    /// # Errors
    /// It does not.
    pub fn reach(root: &Root, kind: Kind, socket: &str) -> Result<Self, Error> {
        match find::reach(root, socket) {
            Ok(()) => Self::new(root, kind, socket),
            Err(error) => {
                let reason = format!("connect to {socket}: {error}");
                Err(Error::Unreachable { errno: error.raw_os_error(), reason })
            }
        }
    }

    /// Like [`Client::reach`], for an engine that may be away for a moment.
    ///
    /// # Errors
    /// It still is after `patience`.
    pub async fn await_reach(
        root: &Root,
        kind: Kind,
        known: &str,
        patience: Duration,
    ) -> Result<Self, Error> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::reach(root, kind, known) {
                Err(Error::Unreachable { .. }) if Instant::now() < deadline => {}
                result => return result,
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Notes that the engine went away over something.
    pub(crate) fn note_away(&self) {
        self.away.store(true, Ordering::Relaxed);
    }

    /// Whether the engine was away since this was asked last: it may have taken containers with it
    /// that ran before.
    pub fn was_away(&self) -> bool {
        self.away.swap(false, Ordering::Relaxed)
    }

    /// Which engine it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The ids of the containers that are up: running, paused, about to be started again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn up(&self) -> Result<Vec<String>, Error> {
        if let Transport::User { agent, .. } = &self.transport {
            return user::up(agent, PATIENCE).await;
        }
        // Podman does not know the word "restarting", and refuses the whole question.
        let states = match self.kind {
            Kind::Docker => r#"["running","paused","restarting"]"#,
            _ => r#"["running","paused"]"#,
        };
        let filters = percent_encoded(&format!(r#"{{"status":{states}}}"#));
        let list: Vec<Summary> = self.get(&format!("/containers/json?all=true&filters={filters}")).await?;
        Ok(list.into_iter().map(|summary| summary.id).collect())
    }

    /// What the engine says of a container.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn inspect(&self, id: &str) -> Result<Inspect, Error> {
        match &self.transport {
            Transport::Socket { .. } => self.get(&format!("/containers/{}/json", segment(id)?)).await,
            Transport::User { root, agent } => user::inspect(root, agent, id, PATIENCE).await,
        }
    }

    /// All that it takes to make a container like this one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn definition(&self, id: &str) -> Result<Definition, Error> {
        Definition::of(&self.get(&format!("/containers/{}/json", segment(id)?)).await?)
    }

    /// Makes a container, and does not start it; returns its id.
    ///
    /// # Errors
    /// See [`Error`]. Then there is none.
    pub async fn create(&self, name: &str, definition: &Definition) -> Result<String, Error> {
        let mut body = definition.body.clone();
        let image = body.get("Image").and_then(Value::as_str).unwrap_or_default();
        // The name where it still means the same, so that the container reads as it did.
        if self.image(image).await?.as_ref() != Some(&definition.image) {
            body.insert("Image".into(), json!(definition.image));
        }
        let target = format!("/containers/create?name={}", percent_encoded(name));
        let Summary { id } = understood(&self.post(&target, &Value::Object(body)).await?)?;
        for (network, endpoint) in &definition.networks {
            let target = format!("/networks/{}/connect", percent_encoded(network));
            let joined = self.post(&target, &json!({"Container": id, "EndpointConfig": endpoint})).await;
            if let Err(error) = joined {
                self.remove(&id).await?;
                return Err(error);
            }
        }
        Ok(id)
    }

    /// Waits until the engine has deleted a container.
    ///
    /// # Errors
    /// See [`Error`]; it is still there after `patience`.
    pub async fn await_gone(&self, id: &str, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        loop {
            match self.inspect(id).await {
                Err(Error::Gone) => return Ok(()),
                Ok(_) if Instant::now() < deadline => sleep(Duration::from_millis(100)).await,
                Ok(_) => return Err(Error::TimedOut(patience)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The id of the image of this name.
    async fn image(&self, name: &str) -> Result<Option<String>, Error> {
        match self.get::<Summary>(&format!("/images/{}/json", percent_encoded(name))).await {
            Ok(image) => Ok(Some(image.id)),
            Err(Error::Gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What lies at `target`.
    async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, Error> {
        let body = self.send(Request::get(self.uri(target)?), Bytes::new(), PATIENCE).await?;
        understood(&body)
    }

    fn uri(&self, target: &str) -> Result<Uri, Error> {
        match &self.transport {
            Transport::Socket { path, .. } => Ok(Uri::new(path, target)),
            Transport::User { .. } => Err(Error::Odd("that is not asked of a user's engine".into())),
        }
    }

    /// What comes of giving `value` to `target`.
    async fn post(&self, target: &str, value: &Value) -> Result<Bytes, Error> {
        let request = Request::post(self.uri(target)?).header("Content-Type", "application/json");
        self.send(request, Bytes::from(value.to_string()), ORDER).await
    }

    /// The answer to a request. Without a version in the path, as bollard asks: each engine answers
    /// in its own latest.
    async fn send(&self, request: Builder, body: Bytes, patience: Duration) -> Result<Bytes, Error> {
        let client =
            legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(UnixConnector);
        let request = request
            // The very type that bollard sends, so that its code serves here as well.
            .body(bollard::body_full(body))
            .map_err(|error| Error::Odd(error.to_string()))?;
        let answer = async {
            let response = client.request(request).await.map_err(|error| unreachable(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), bounded::BODY).collect().await;
            let body = body.map_err(|error| unreachable(error.as_ref()))?.to_bytes();
            Ok((status.as_u16(), body))
        };
        match timeout(patience, answer).await.map_err(|_| Error::TimedOut(patience))?? {
            (200..=299, body) => Ok(body),
            (404, _) => Err(Error::Gone),
            (status, body) => {
                let message = serde_json::from_slice(&body).map_or_else(
                    |_| String::from_utf8_lossy(&body).into_owned(),
                    |refusal: Refusal| refusal.message,
                );
                Err(Error::Refused { status, message })
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    id: String,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

fn understood<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Odd(error.to_string()))
}

fn typed(error: bollard::errors::Error, patience: Duration) -> Error {
    use bollard::errors::Error as E;
    match error {
        E::DockerResponseServerError { status_code: 404, .. } => Error::Gone,
        E::DockerResponseServerError { status_code, message } => {
            Error::Refused { status: status_code, message }
        }
        E::RequestTimeoutError => Error::TimedOut(patience),
        E::SocketNotFoundError(path) => {
            let errno = io::Error::from(io::ErrorKind::NotFound).raw_os_error();
            Error::Unreachable { errno, reason: format!("there is no {path}") }
        }
        error => unreachable(&error),
    }
}

/// The connection's failure. The kernel's error lies at the bottom of hyper's and bollard's.
fn unreachable(error: &dyn std::error::Error) -> Error {
    let mut errno = None;
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        errno = errno.or(cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error));
        innermost = cause;
    }
    Error::Unreachable { errno, reason: innermost.to_string() }
}
