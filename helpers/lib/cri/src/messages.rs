// SPDX-License-Identifier: MIT
//! The messages, less what nothing here asks for. Numbers and meanings are of `api.proto` in
//! Kubernetes' `cri-api`; what is not named is skipped in an answer, so newer runtimes answer as well.

use std::collections::HashMap;

use prost::Message;

/// `ListContainersResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Containers {
    #[prost(message, repeated, tag = "1")]
    pub(crate) containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, PartialEq, Message)]
pub struct Container {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The id of the sandbox it runs in.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// What it is called, and which try it is.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Metadata>,
    /// What it does.
    #[prost(enumeration = "ContainerState", tag = "6")]
    pub state: i32,
    /// When it was made, in nanoseconds since 1970.
    #[prost(int64, tag = "7")]
    pub created_at: i64,
    /// The kubelet's labels.
    #[prost(map = "string, string", tag = "8")]
    pub labels: HashMap<String, String>,
    /// The kubelet's annotations.
    #[prost(map = "string, string", tag = "9")]
    pub annotations: HashMap<String, String>,
}

/// `ContainerMetadata`.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    /// The name in the pod.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How often the kubelet has made it before.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// It was made, and not started yet.
    Created = 0,
    /// It runs.
    Running = 1,
    /// It ended.
    Exited = 2,
    /// The runtime does not know.
    Unknown = 3,
}

/// `ListPodSandboxResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxes {
    #[prost(message, repeated, tag = "1")]
    pub(crate) items: Vec<PodSandbox>,
}

/// A pod's sandbox: what its containers share.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandbox {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its owner.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<SandboxMetadata>,
    /// Whether containers can run in it.
    #[prost(enumeration = "SandboxState", tag = "3")]
    pub state: i32,
    /// The pod's labels and the kubelet's.
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
    /// The runtime of the pod's RuntimeClass, by its name in the engine; empty for the engine's default.
    #[prost(string, tag = "7")]
    pub runtime_handler: String,
}

/// `PodSandboxMetadata`.
#[derive(Clone, PartialEq, Message)]
pub struct SandboxMetadata {
    /// The pod's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The pod's UID.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// The pod's namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// How often the kubelet has made it before.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// Whether containers can run in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum SandboxState {
    /// They can.
    Ready = 0,
    /// They cannot: it was stopped, or the machine was.
    NotReady = 1,
}

/// `StopContainerRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StopContainer {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    /// In seconds; 0 for SIGKILL at once.
    #[prost(int64, tag = "2")]
    pub(crate) timeout: i64,
}

/// `ContainerStatusRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AskContainer {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    /// Whether the runtime is to tell what is its own.
    #[prost(bool, tag = "2")]
    pub(crate) verbose: bool,
}

/// `StatusRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AskRuntime {
    #[prost(bool, tag = "1")]
    pub(crate) verbose: bool,
}

/// What is the runtime's own of `ContainerStatusResponse` and `StatusResponse`: texts in JSON.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Verbose {
    #[prost(map = "string, string", tag = "2")]
    pub(crate) info: HashMap<String, String>,
}

/// A question for all, or an answer that says nothing.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Nothing {}
