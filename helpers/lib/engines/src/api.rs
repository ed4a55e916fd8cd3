//! One engine's API, reduced to what is asked of it here, with errors that can be acted upon.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::inspect::{self, Inspect};
use crate::{Kind, find};
use step::Root;

/// How long an engine gets for an answer that needs no waiting. A daemon that comes up with
/// hundreds of containers is slow; one that has hung stays silent for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why an engine did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It knows no such container.
    #[error("the engine knows no such container")]
    Gone,
    /// It could not be asked, or went away over it: the order may or may not have arrived.
    #[error("the engine does not answer: {reason}")]
    Unreachable {
        /// The kernel's error number, if there was one.
        errno: Option<i32>,
        /// What happened to the connection.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the engine did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It said no.
    #[error("the engine answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The engine's words, for a reader only.
        message: String,
    },
    /// It said what nobody here understands.
    #[error("the engine's answer cannot be understood: {0}")]
    Odd(String),
}

/// An engine's API.
#[derive(Debug, Clone)]
pub struct Client {
    kind: Kind,
    docker: Docker,
}

impl Client {
    /// An engine behind `socket`; connects with each request.
    ///
    /// # Errors
    /// There is no such socket.
    pub fn new(root: &Root, kind: Kind, socket: &str) -> Result<Self, Error> {
        let path = root.path(socket);
        let path = path.to_str().ok_or_else(|| Error::Odd(format!("{socket} is no text")))?;
        // bollard asks without a version in the path: each engine answers in its own latest.
        let docker = Docker::connect_with_unix(path, PATIENCE.as_secs(), bollard::API_DEFAULT_VERSION)
            .map_err(|error| typed(error, PATIENCE))?;
        Ok(Self { kind, docker })
    }

    /// The engine behind whichever of its sockets takes a connection, `known` first.
    ///
    /// # Errors
    /// None does.
    pub fn reach(root: &Root, kind: Kind, known: &str) -> Result<Self, Error> {
        let others = find::sockets(kind).iter().copied().filter(|socket| *socket != known);
        let mut refused = None;
        for socket in std::iter::once(known).chain(others) {
            match find::reach(root, socket) {
                Ok(()) => return Self::new(root, kind, socket),
                Err(error) => {
                    let reason = format!("connect to {socket}: {error}");
                    refused.get_or_insert(Error::Unreachable { errno: error.raw_os_error(), reason });
                }
            }
        }
        Err(refused.unwrap_or(Error::Unreachable { errno: None, reason: "no socket".to_owned() }))
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

    /// Whose API it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The ids of the containers that are up: running, paused, about to be started again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn up(&self) -> Result<Vec<String>, Error> {
        let mut states = vec!["running".to_owned(), "paused".to_owned()];
        if self.kind == Kind::Docker {
            // Podman does not know the word, and refuses the whole question.
            states.push("restarting".to_owned());
        }
        let filters = HashMap::from([("status".to_owned(), states)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        match self.docker.list_containers(Some(options)).await {
            Ok(list) => Ok(list.into_iter().filter_map(|summary| summary.id).collect()),
            Err(bollard::errors::Error::JsonDataError { contents, .. }) => {
                let list: Vec<Summary> = own(&contents)?;
                Ok(list.into_iter().map(|summary| summary.id).collect())
            }
            Err(error) => Err(typed(error, PATIENCE)),
        }
    }

    /// What the engine says of a container.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn inspect(&self, id: &str) -> Result<Inspect, Error> {
        match self.docker.inspect_container(id, None::<InspectContainerOptions>).await {
            Ok(answer) => Ok(answer.into()),
            // bollard's types are Docker's of today; Podman has states of its own.
            Err(bollard::errors::Error::JsonDataError { contents, .. }) => own(&contents),
            Err(error) => Err(typed(error, PATIENCE)),
        }
    }

    /// The runtime that the engine takes when none is asked for.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn default_runtime(&self) -> Result<Option<String>, Error> {
        match self.docker.info().await {
            Ok(info) => Ok(info.default_runtime),
            Err(bollard::errors::Error::JsonDataError { contents, .. }) => {
                Ok(own::<Info>(&contents)?.default_runtime)
            }
            Err(error) => Err(typed(error, PATIENCE)),
        }
    }

    /// Sends the stop signal, and SIGKILL after `grace`. Returns when the engine has seen it end.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let options =
            StopContainerOptionsBuilder::new().t(grace.as_secs().min(i32::MAX as u64) as i32).build();
        let patience = grace + PATIENCE;
        let docker = self.docker.clone().with_timeout(patience);
        docker.stop_container(id, Some(options)).await.map_err(|error| typed(error, patience))
    }

    /// Starts it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        let started = self.docker.start_container(id, None::<StartContainerOptions>).await;
        started.map_err(|error| typed(error, PATIENCE))
    }

    /// Freezes its processes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pause(&self, id: &str) -> Result<(), Error> {
        self.docker.pause_container(id).await.map_err(|error| typed(error, PATIENCE))
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn unpause(&self, id: &str) -> Result<(), Error> {
        self.docker.unpause_container(id).await.map_err(|error| typed(error, PATIENCE))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    default_runtime: Option<String>,
}

fn own<T: for<'a> Deserialize<'a>>(contents: &str) -> Result<T, Error> {
    serde_json::from_str(contents).map_err(|error| Error::Odd(error.to_string()))
}

fn typed(error: bollard::errors::Error, patience: Duration) -> Error {
    use bollard::errors::Error as E;
    match error {
        E::DockerResponseServerError { status_code: 404, .. } => Error::Gone,
        E::DockerResponseServerError { status_code, message } => {
            Error::Refused { status: status_code, message }
        }
        E::RequestTimeoutError => Error::TimedOut(patience),
        E::JsonDataError { message, .. } => Error::Odd(message),
        E::SocketNotFoundError(path) => {
            let errno = io::Error::from(io::ErrorKind::NotFound).raw_os_error();
            Error::Unreachable { errno, reason: format!("there is no {path}") }
        }
        error => {
            // The kernel's error lies under hyper's, which lies under bollard's.
            let mut errno = None;
            let mut cause = error.source();
            let mut reason = error.to_string();
            while let Some(inner) = cause {
                reason = inner.to_string();
                errno = errno.or(inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error));
                cause = inner.source();
            }
            Error::Unreachable { errno, reason }
        }
    }
}

impl From<ContainerInspectResponse> for Inspect {
    fn from(answer: ContainerInspectResponse) -> Self {
        Self {
            id: answer.id,
            name: answer.name,
            created: answer.created,
            state: answer.state.map(|state| inspect::State {
                status: state.status.map(|status| status.to_string()),
                pid: state.pid,
                exit_code: state.exit_code,
            }),
            host_config: answer.host_config.map(|host| inspect::HostConfig {
                auto_remove: host.auto_remove,
                privileged: host.privileged,
                runtime: host.runtime,
                restart_policy: host
                    .restart_policy
                    .map(|policy| inspect::RestartPolicy { name: policy.name.map(|name| name.to_string()) }),
                devices: host.devices.map(|devices| {
                    devices
                        .into_iter()
                        .map(|device| inspect::Device { path_on_host: device.path_on_host })
                        .collect()
                }),
                device_requests: host.device_requests.map(|requests| {
                    requests
                        .into_iter()
                        .map(|request| inspect::DeviceRequest {
                            driver: request.driver,
                            device_ids: request.device_ids,
                            capabilities: request.capabilities,
                        })
                        .collect()
                }),
                device_cgroup_rules: host.device_cgroup_rules,
                network_mode: host.network_mode,
                ipc_mode: host.ipc_mode,
                pid_mode: host.pid_mode,
                links: host.links,
            }),
            config: answer.config.map(|config| inspect::Config {
                env: config.env,
                labels: config.labels.map(|labels| labels.into_iter().collect()),
                stop_timeout: config.stop_timeout,
            }),
            mounts: answer.mounts.map(|mounts| {
                mounts.into_iter().map(|mount| inspect::Mount { source: mount.source }).collect()
            }),
        }
    }
}
