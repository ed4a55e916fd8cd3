// SPDX-License-Identifier: MIT
//! What an engine says of a container, less what nothing here asks for.
//!
//! The shape is Docker's `GET /containers/ID/json`, which Podman answers as well. Every field may
//! be missing or null: engines of ten years answer here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A container as its engine describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Inspect {
    /// The full id.
    pub id: Option<String>,
    /// The name; Docker's begins with a slash.
    pub name: Option<String>,
    /// When it was created, as RFC 3339: sorts by time.
    pub created: Option<String>,
    /// What it does now.
    pub state: Option<State>,
    /// What it was given of the host.
    pub host_config: Option<HostConfig>,
    /// What runs in it.
    pub config: Option<Config>,
    /// What of the host is mounted in it.
    pub mounts: Option<Vec<Mount>>,
    /// Podman: the runtime's name or program.
    #[serde(rename = "OCIRuntime")]
    pub oci_runtime: Option<String>,
}

/// What a container does now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct State {
    /// The engine's word for it.
    pub status: Option<String>,
    /// Its first process, zero when there is none.
    pub pid: Option<i64>,
    /// How that process ended last.
    pub exit_code: Option<i64>,
    /// When that was, as RFC 3339.
    pub finished_at: Option<String>,
    /// What its health check says, where it has one.
    pub health: Option<Health>,
}

/// What a health check says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`; empty or `none` where there is no check.
    pub status: Option<String>,
}

/// What a container was given of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    /// `--rm`.
    pub auto_remove: Option<bool>,
    /// `--privileged`.
    pub privileged: Option<bool>,
    /// `--runtime`, or the engine's default.
    pub runtime: Option<String>,
    /// `--restart`.
    pub restart_policy: Option<RestartPolicy>,
    /// `--device`.
    pub devices: Option<Vec<Device>>,
    /// `--gpus`.
    pub device_requests: Option<Vec<DeviceRequest>>,
    /// `--device-cgroup-rule`.
    pub device_cgroup_rules: Option<Vec<String>>,
    /// `--network`; `container:ID` shares another's.
    pub network_mode: Option<String>,
    /// `--ipc`, likewise.
    pub ipc_mode: Option<String>,
    /// `--pid`, likewise.
    pub pid_mode: Option<String>,
    /// `--link`: `/NAME:/ALIAS`.
    pub links: Option<Vec<String>>,
}

/// When the engine starts a container again by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// Its name; empty for `no`.
    pub name: Option<String>,
}

/// A device that was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Device {
    /// A node, or a directory of nodes.
    pub path_on_host: Option<String>,
}

/// A request for devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// `nvidia`, `cdi`, or empty for any that has the capabilities.
    #[serde(rename = "Driver")]
    pub driver: Option<String>,
    /// Indexes, UUIDs, or CDI names.
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Option<Vec<String>>,
    /// Alternatives of sets.
    #[serde(rename = "Capabilities")]
    pub capabilities: Option<Vec<Vec<String>>>,
}

/// What runs in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// The effective environment: the image's, then the container's.
    pub env: Option<Vec<String>>,
    /// The effective labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// `--stop-timeout`, in seconds.
    pub stop_timeout: Option<i64>,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Mount {
    /// Where it comes from on the host.
    pub source: Option<String>,
}

/// A container's state, as far as the difference matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Its processes run.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It ended and its engine is about to start it again.
    Restarting,
    /// It is being stopped.
    Stopping,
    /// It is being deleted.
    Removing,
    /// Nothing of it runs.
    Down,
    /// The engine said something else.
    Unknown(String),
}

impl Inspect {
    /// The full id.
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// The name, without a leading slash.
    pub fn name(&self) -> &str {
        let name = self.name.as_deref().unwrap_or_default();
        name.strip_prefix('/').unwrap_or(name)
    }

    /// What it does now.
    pub fn phase(&self) -> Phase {
        let status = self.state.as_ref().and_then(|state| state.status.as_deref()).unwrap_or_default();
        match status {
            "running" => Phase::Running,
            "paused" => Phase::Paused,
            "restarting" => Phase::Restarting,
            "stopping" => Phase::Stopping,
            "removing" => Phase::Removing,
            // The last three are Podman's: never started, set up, ended and not yet cleaned up.
            "created" | "exited" | "dead" | "configured" | "initialized" | "stopped" => Phase::Down,
            other => Phase::Unknown(other.to_owned()),
        }
    }

    /// How its first process ended last.
    pub fn exit_code(&self) -> i64 {
        self.state.as_ref().and_then(|state| state.exit_code).unwrap_or_default()
    }

    /// When its first process ended last, in microseconds since 1970; none where the engine does not say.
    pub fn finished_usec(&self) -> Option<u64> {
        let said = humantime::parse_rfc3339(self.state.as_ref()?.finished_at.as_deref()?).ok()?;
        let since = said.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_micros()).ok()
    }

    /// What its health check says; none where it has none.
    pub fn health(&self) -> Option<&str> {
        let status = self.state.as_ref()?.health.as_ref()?.status.as_deref()?;
        Some(status).filter(|status| !matches!(*status, "" | "none"))
    }

    /// Its first process, in our pid namespace.
    pub fn pid(&self) -> Option<i32> {
        let pid = self.state.as_ref()?.pid?;
        i32::try_from(pid).ok().filter(|pid| *pid > 0)
    }

    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether its engine deletes it as soon as it stops.
    pub fn auto_remove(&self) -> bool {
        self.host_config.as_ref().and_then(|host| host.auto_remove).unwrap_or_default()
    }

    /// How long it wants between the stop signal and SIGKILL, in seconds.
    pub fn stop_timeout(&self) -> Option<i64> {
        self.config.as_ref()?.stop_timeout
    }

    /// The restart policy's name.
    pub fn restart(&self) -> String {
        let name = || self.host_config.as_ref()?.restart_policy.as_ref()?.name.clone();
        name().filter(|name| !name.is_empty()).unwrap_or_else(|| "no".to_owned())
    }

    /// What has to run before it can start: ids, names, and compose services as
    /// `compose_service` writes them.
    pub fn needs(&self) -> Vec<String> {
        let mut needs = Vec::new();
        if let Some(host) = &self.host_config {
            let shared = [&host.network_mode, &host.ipc_mode, &host.pid_mode];
            let shared = shared.into_iter().flatten().filter_map(|mode| mode.strip_prefix("container:"));
            needs.extend(shared.map(str::to_owned));
            let linked = host.links.iter().flatten().filter_map(|link| link.split(':').next());
            needs.extend(linked.map(|name| name.trim_start_matches('/').to_owned()));
        }
        if let (Some(project), Some(services)) =
            (self.label("com.docker.compose.project"), self.label("com.docker.compose.depends_on"))
        {
            // SERVICE[:CONDITION:RESTART], by commas.
            let names = services.split(',').filter_map(|service| service.split(':').next());
            needs.extend(names.filter(|name| !name.is_empty()).map(|name| compose_service(project, name)));
        }
        needs.sort();
        needs.dedup();
        needs
    }

    /// Every word by which another's [`Inspect::needs`] may mean this one.
    pub fn aliases(&self) -> Vec<String> {
        let mut aliases = vec![self.id().to_owned(), self.name().to_owned()];
        if let (Some(project), Some(service)) =
            (self.label("com.docker.compose.project"), self.label("com.docker.compose.service"))
        {
            aliases.push(compose_service(project, service));
        }
        aliases
    }
}

/// A service of a compose project as a word that no container's id or name can be.
fn compose_service(project: &str, service: &str) -> String {
    format!("compose:{project}/{service}")
}
