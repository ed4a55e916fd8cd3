// SPDX-License-Identifier: MIT
//! What a survey of the engines finds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name and version of the JSON that `drain-containers list --json` prints.
pub const SURVEY_SCHEMA: &str = "nvidia-reload.containers/1";

/// The engines of the machine and their containers that have a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// [`SURVEY_SCHEMA`].
    pub schema: String,
    /// Every engine that was looked for.
    pub engines: Vec<Engine>,
    /// When `dockerd` had started, in clock ticks since boot, before it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerd: Option<u64>,
    /// The running and paused containers that have a GPU, engine by engine, oldest first.
    pub containers: Vec<Container>,
    /// Ids that were said to hold a GPU and that no engine here knows: of another engine, or just
    /// gone.
    pub unknown: Vec<String>,
    /// Containers of which it is not known whether they have a GPU, and why: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unclear: Vec<String>,
}

/// A container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Docker, or Moby.
    Docker,
    /// Podman, of root or of a user.
    Podman,
    /// containerd, for the pods of a kubelet.
    Containerd,
    /// CRI-O, for the same.
    CriO,
}

impl Kind {
    /// The name in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Docker => "docker",
            Kind::Podman => "podman",
            Kind::Containerd => "containerd",
            Kind::CriO => "cri-o",
        }
    }

    /// The engine of that name in the ledger.
    pub fn from_name(name: &str) -> Option<Self> {
        [Kind::Docker, Kind::Podman, Kind::Containerd, Kind::CriO]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Docker => "Docker",
            Kind::Podman => "Podman",
            Kind::Containerd => "containerd",
            Kind::CriO => "CRI-O",
        })
    }
}

/// An engine, and whether it could be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Which.
    pub kind: Kind,
    /// The user, where it is a user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Its API socket.
    pub socket: String,
    /// Whether it answers.
    #[serde(flatten)]
    pub presence: Presence,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            None => write!(f, "{}", self.kind),
            Some(uid) => write!(f, "{} of user {uid}", self.kind),
        }
    }
}

/// Whether an engine could be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "presence", rename_all = "kebab-case")]
pub enum Presence {
    /// It answered.
    Ready,
    /// It is not there, or runs nothing: there is nothing to ask it for.
    Absent {
        /// How that is known.
        reason: String,
    },
    /// It is there and does not answer.
    Unreachable {
        /// The kernel's error number, where it was the kernel that refused.
        errno: Option<i32>,
        /// What was tried and what came of it.
        reason: String,
    },
}

/// A running or paused container that has a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its owner.
    pub engine: Kind,
    /// The user, where it is of a user's own engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// The engine's API socket.
    pub socket: String,
    /// The engine's full id.
    pub id: String,
    /// The name, without a leading slash.
    pub name: String,
    /// Whether it is paused; else it runs.
    pub paused: bool,
    /// Whether the engine deletes it as soon as it stops (`--rm`).
    pub auto_remove: bool,
    /// Whether it has a health check.
    pub has_health_check: bool,
    /// The restart policy: `no`, `always`, `unless-stopped`, `on-failure`.
    pub restart: String,
    /// How long it wants between the stop signal and SIGKILL, in seconds; negative for ever, none
    /// for the engine's default.
    pub stop_timeout: Option<i64>,
    /// Who looks after it.
    pub owner: Owner,
    /// Every word by which another's `needs` may mean this one.
    pub aliases: Vec<String>,
    /// The ids, names and compose services that have to run before this one can start.
    pub needs: Vec<String>,
    /// Its first process, in our pid namespace.
    pub pid: i32,
    /// Why it counts; never empty.
    pub why: Vec<Why>,
}

impl Container {
    /// The same in the ledger: all that it takes to start it again. `health_timeout` is the configuration's, in
    /// seconds.
    pub fn in_ledger(&self, health_timeout: u64) -> ledger::Container {
        ledger::Container {
            engine: self.engine.name().to_owned(),
            socket: self.socket.clone(),
            id: self.id.clone(),
            name: self.name.clone(),
            paused: self.paused,
            user: self.user,
            // What is frozen is not looked at by its engine.
            health_timeout: (self.has_health_check && !self.paused && health_timeout > 0)
                .then_some(health_timeout),
            before_cdi: self.starts_without_cdi(),
            ..ledger::Container::default()
        }
    }

    /// Whether it is dealt with as the plain processes that it is: no engine of the system's starts it, and a user
    /// who has it deleted when it stops cannot make a run a refusal by that.
    pub fn is_plain(&self) -> bool {
        self.user.is_some() && self.auto_remove && !matches!(self.owner, Owner::Unit { .. })
    }

    /// Why it counts, in words.
    pub fn reasons(&self) -> String {
        self.why.iter().map(Why::to_string).collect::<Vec<_>>().join("; ")
    }

    /// Whether it is certain that it can be started with no CDI specification and no other container. Podman
    /// does not name the CDI devices of a container, and NVIDIA's runtime and Docker's `--gpus` may use CDI
    /// without a name.
    pub fn starts_without_cdi(&self) -> bool {
        let is_plain = |why: &Why| matches!(why, Why::Holds | Why::Device { .. });
        self.engine == Kind::Docker && self.needs.is_empty() && self.why.iter().all(is_plain)
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The same words as the ledger's, so that a reader finds one by the other.
        write!(f, "{} container {} ({:.12})", self.engine.name(), self.name, self.id)?;
        self.user.map_or(Ok(()), |uid| write!(f, " of user {uid}"))
    }
}

/// Who looks after a container: stopped behind its back, it would only start another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Owner {
    /// Only its engine.
    Engine,
    /// A compose project. Compose watches nothing: the container may be stopped and started.
    Compose {
        /// The project.
        project: String,
        /// The service in it.
        service: String,
    },
    /// A Swarm task: the manager would start another.
    Swarm {
        /// The service's name, or the task's id where the labels do not say.
        service: String,
        /// This node's id in the Swarm, where the labels say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<String>,
    },
    /// A Kubernetes pod: the kubelet would start another.
    Kubernetes {
        /// `NAMESPACE/POD`, or the container's name where the labels do not say.
        pod: String,
        /// The pod's UID; empty where the labels do not say.
        #[serde(default)]
        uid: String,
        /// Whether it is of a DaemonSet: then it is sure to be started again.
        #[serde(default)]
        daemon_set: bool,
        /// The unit that runs the kubelet, where that can be stopped and leaves the runtime running.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kubelet: Option<String>,
    },
    /// A Nomad allocation: the client would start another.
    Nomad {
        /// The allocation's id.
        allocation: String,
    },
    /// A client of containerd's own, such as nerdctl or ctr.
    Namespace {
        /// containerd's namespace.
        namespace: String,
    },
    /// A systemd unit: it is stopped and started, and the container with it.
    Unit {
        /// The unit.
        unit: String,
    },
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Engine => f.write_str("its engine only"),
            Owner::Compose { project, service } => {
                write!(f, "service {service} of compose project {project}")
            }
            Owner::Swarm { service, .. } => write!(f, "Swarm service {service}"),
            Owner::Kubernetes { pod, .. } => write!(f, "Kubernetes pod {pod}"),
            Owner::Nomad { allocation } => write!(f, "Nomad allocation {allocation}"),
            Owner::Namespace { namespace } => write!(f, "containerd's namespace {namespace}"),
            Owner::Unit { unit } => write!(f, "systemd unit {unit}"),
        }
    }
}

/// Why a container counts as having a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Why {
    /// It was given a device node (`--device`, CDI, a device rule together with a mount).
    Device {
        /// The node's path on the host.
        path: String,
        /// `MAJOR:MINOR`, by which it was recognised; none where the path is gone and nothing but
        /// its name is left to go by.
        number: Option<String>,
        /// What the kernel calls devices of this number.
        class: String,
    },
    /// It was created with a request for GPUs (`--gpus`).
    Request {
        /// The driver asked for; empty for any.
        driver: String,
        /// The capabilities or device ids asked for.
        devices: Vec<String>,
    },
    /// It was given a CDI device.
    Cdi {
        /// The qualified name, such as `nvidia.com/gpu=all`.
        name: String,
    },
    /// It runs under NVIDIA's container runtime.
    Runtime {
        /// The runtime's name in the engine.
        name: String,
    },
    /// `NVIDIA_VISIBLE_DEVICES` in its environment asks for GPUs.
    Environment {
        /// The variable's value.
        value: String,
    },
    /// A process of it holds a GPU at this moment.
    Holds,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Device { path, number: Some(number), class } => {
                write!(f, "was given {path} (device {number}, {class})")
            }
            Why::Device { path, number: None, .. } => {
                write!(f, "was given {path}, which is gone from the host; by its name it was the driver's")
            }
            Why::Request { driver, devices } if driver.is_empty() => {
                write!(f, "requests GPUs ({})", devices.join(","))
            }
            Why::Request { driver, devices } => {
                write!(f, "requests GPUs from driver {driver} ({})", devices.join(","))
            }
            Why::Cdi { name } => write!(f, "was given CDI device {name}"),
            Why::Runtime { name } => write!(f, "runs under runtime {name}"),
            Why::Environment { value } => write!(f, "has NVIDIA_VISIBLE_DEVICES={value}"),
            Why::Holds => f.write_str("holds a GPU"),
        }
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    #[test]
    fn a_survey_is_read_back_as_it_was_printed() {
        let survey = Survey {
            schema: SURVEY_SCHEMA.to_owned(),
            engines: vec![
                Engine {
                    kind: Kind::Docker,
                    user: None,
                    socket: "/run/docker.sock".into(),
                    presence: Presence::Ready,
                },
                Engine {
                    kind: Kind::Podman,
                    user: Some(1000),
                    socket: "/run/podman/podman.sock".into(),
                    presence: Presence::Unreachable { errno: Some(13), reason: "denied".into() },
                },
            ],
            dockerd: Some(1234),
            containers: vec![Container {
                engine: Kind::Docker,
                user: None,
                socket: "/run/docker.sock".into(),
                id: "0a1b".into(),
                name: "job".into(),
                paused: false,
                auto_remove: false,
                has_health_check: false,
                restart: "always".into(),
                stop_timeout: Some(-1),
                owner: Owner::Compose { project: "p".into(), service: "job".into() },
                aliases: vec!["0a1b".into()],
                needs: Vec::new(),
                pid: 42,
                why: vec![
                    Why::Holds,
                    Why::Device { path: "/dev/nvidia7".into(), number: None, class: String::new() },
                ],
            }],
            unknown: vec!["ffff".into()],
            unclear: vec!["container x: not known".into()],
        };
        let text = serde_json::to_string_pretty(&survey).expect("prints");
        assert_eq!(serde_json::from_str::<Survey>(&text).expect("reads"), survey);
        assert!(text.contains(r#""presence": "unreachable""#), "{text}");
        assert_eq!(survey.containers[0].to_string(), "docker container job (0a1b)");
        assert_eq!(Kind::from_name("podman"), Some(Kind::Podman));
        assert_eq!(Kind::from_name("lxc"), None);
    }
}
