// SPDX-License-Identifier: MIT
//! Kubernetes' Container Runtime Interface (CRI, version 1) of containerd from 1.6 and CRI-O from 1.24: which
//! containers of pods run, and how to stop them.
//!
//! The kubelet starts them, from the definition of the pod. This interface cannot start a container a second time, so
//! a stopped container needs a kubelet to run again.

#![forbid(unsafe_code)]

#[cfg(test)]
mod fuzz;
mod messages;

use std::time::Duration;

use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

pub use messages::{Container, ContainerState, Metadata, PodSandbox, SandboxMetadata, SandboxState};

/// The label that the kubelet puts on containers and sandboxes: the pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The same: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The same: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The same, of containers only: the container's name in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The kubelet's annotation on a container: the time that the pod gives it to end, in seconds.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// How long the runtime gets for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that an answer may have; the kubelet's own limit.
const LARGEST: usize = 16 << 20;

/// A question without a filter.
const ALL: messages::Nothing = messages::Nothing {};

/// Why the runtime did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It knows no such container.
    #[error("the runtime knows no such container")]
    Gone,
    /// It could not be asked, or went away over it: the order may or may not have arrived.
    #[error("the runtime does not answer: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("the runtime did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It said no.
    #[error("the runtime answered {code:?}: {message}")]
    Refused {
        /// gRPC's code.
        code: Code,
        /// The runtime's words, for a reader only.
        message: String,
    },
}

/// A runtime behind its socket.
#[derive(Debug, Clone)]
pub struct Client(Channel);

impl Client {
    /// Connects with the first request, and again where the connection broke.
    ///
    /// # Errors
    /// The path is none that a socket can have.
    pub fn new(socket: &str) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(format!("unix://{socket}"))
            .map_err(|error| Error::Unreachable(format!("{socket}: {error}")))?;
        Ok(Self(endpoint.connect_lazy()))
    }

    /// All containers of pods, whatever they do; their sandboxes are none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn containers(&self) -> Result<Vec<Container>, Error> {
        let answer: messages::Containers = self.call("ListContainers", ALL, PATIENCE).await?;
        Ok(answer.containers)
    }

    /// All sandboxes: one a pod, and those of pods that ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn sandboxes(&self) -> Result<Vec<PodSandbox>, Error> {
        let answer: messages::PodSandboxes = self.call("ListPodSandbox", ALL, PATIENCE).await?;
        Ok(answer.items)
    }

    /// What the runtime itself knows of a container, in JSON: its first process (`pid`) and what it was made
    /// from (`runtimeSpec`); none where the runtime does not tell.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn container_info(&self, id: &str) -> Result<Option<String>, Error> {
        let question = messages::AskContainer { container_id: id.to_owned(), verbose: true };
        let mut answer: messages::Verbose = self.call("ContainerStatus", question, PATIENCE).await?;
        Ok(answer.info.remove("info"))
    }

    /// The runtime's configuration, in its own form: containerd's is JSON, CRI-O's TOML; none where it does not
    /// tell.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn config(&self) -> Result<Option<String>, Error> {
        let question = messages::AskRuntime { verbose: true };
        let mut answer: messages::Verbose = self.call("Status", question, PATIENCE).await?;
        Ok(answer.info.remove("config"))
    }

    /// Sends a container its stop signal, and SIGKILL after `grace`. Returns when it has ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let order = messages::StopContainer {
            container_id: id.to_owned(),
            timeout: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        };
        let _: messages::Nothing = self.call("StopContainer", order, grace + PATIENCE).await?;
        Ok(())
    }

    /// Calls a method of the runtime's by name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call<Q, A>(&self, method: &str, question: Q, patience: Duration) -> Result<A, Error>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))
            .map_err(|error| Error::Unreachable(format!("{method}: {error}")))?;
        let mut grpc = Grpc::new(self.0.clone()).max_decoding_message_size(LARGEST);
        let answer = async {
            grpc.ready().await.map_err(|error| Error::Unreachable(innermost(&error)))?;
            grpc.unary(Request::new(question), path, ProstCodec::<Q, A>::default()).await.map_err(typed)
        };
        let answer = timeout(patience, answer).await.map_err(|_| Error::TimedOut(patience))??;
        Ok(answer.into_inner())
    }
}

fn typed(status: Status) -> Error {
    match status.code() {
        Code::NotFound => Error::Gone,
        Code::Unavailable => Error::Unreachable(innermost(&status)),
        code => Error::Refused { code, message: status.message().to_owned() },
    }
}

/// What lies at the bottom of an error: the kernel's, where there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_is_not_there_is_named_so() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("containerd.sock");
        let asked = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(async { Client::new(socket.to_str().expect("is text"))?.containers().await });
        let Err(Error::Unreachable(reason)) = asked else { panic!("{asked:?}") };
        assert!(reason.contains("No such file"), "{reason}");
    }

    #[test]
    fn what_the_runtime_says_is_typed() {
        assert_eq!(typed(Status::not_found("x")), Error::Gone);
        let said = typed(Status::unimplemented("unknown service runtime.v1.RuntimeService"));
        assert!(matches!(said, Error::Refused { code: Code::Unimplemented, .. }), "{said:?}");
    }
}
