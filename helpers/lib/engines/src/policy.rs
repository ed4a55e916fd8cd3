// SPDX-License-Identifier: MIT
//! What becomes of a container that has a GPU: decided here alone. The plan shows it, and drain-containers does
//! it.

use step::{AutoRemove, Config, Pods, Reason};

use crate::{Container, Kind, Owner};

/// What becomes of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Its engine stops it and starts it again.
    Restart,
    /// Its engine stops it and deletes it then (`--rm`); it is created again.
    Recreate,
    /// Its engine stops it and deletes it then, and that is all.
    LetGo,
    /// It is of a pod: its kubelet, in this unit, is stopped, and starts it again.
    Pod(String),
    /// It is stopped and started with its unit.
    Unit(String),
    /// It is a user's, who cannot make it a refusal: dealt with as the processes that it is.
    Plain,
    /// No run begins while it runs.
    Refuse(Reason),
}

/// What becomes of `container`.
pub fn decide(container: &Container, config: &Config) -> Decision {
    let refuse = |why: &str, remedy: &str| {
        Decision::Refuse(Reason::new(format!("{container} {} and {why}", container.reasons()), remedy))
    };
    let all_pods = config.containers.pods == Pods::All;
    if let Some((why, remedy)) = container.owner.forbids(all_pods, &config.units.protect) {
        return refuse(&why, &remedy);
    }
    match &container.owner {
        Owner::Unit { unit } => return Decision::Unit(unit.clone()),
        Owner::Kubernetes { kubelet: Some(kubelet), .. } => return Decision::Pod(kubelet.clone()),
        _ => {}
    }
    if container.is_plain() {
        return Decision::Plain;
    }
    match config.containers.auto_remove {
        _ if !container.auto_remove => Decision::Restart,
        AutoRemove::LetGo => Decision::LetGo,
        AutoRemove::Recreate if container.engine == Kind::Docker => Decision::Recreate,
        AutoRemove::Refuse | AutoRemove::Recreate => refuse(
            "was started with --rm: stopped, it would be deleted",
            "stop it yourself, or set containers.auto-remove",
        ),
    }
}

impl Owner {
    /// Why a container that somebody else would start again must not be stopped, and what to do
    /// about it; none where it may be. `all_pods` is the configuration's word that every pod would be
    /// started again, `protected` are the units that it protects.
    pub(crate) fn forbids(&self, all_pods: bool, protected: &[String]) -> Option<(String, String)> {
        let would_start_another = || format!("belongs to {self}, which would start another");
        let (why, remedy) = match self {
            Owner::Engine | Owner::Compose { .. } | Owner::Unit { .. } => return None,
            Owner::Swarm { node, .. } => {
                let node = node.as_deref().unwrap_or("NODE");
                return Some((
                    would_start_another(),
                    format!(
                        "on a manager of the Swarm, `docker node update --availability drain {node}`; after the run, `docker node update --availability active {node}`"
                    ),
                ));
            }
            Owner::Nomad { .. } | Owner::Kubernetes { kubelet: None, .. } => {
                (would_start_another(), "drain this machine there first, so that nothing of it runs here")
            }
            Owner::Kubernetes { kubelet: Some(kubelet), .. } if protected.contains(kubelet) => (
                format!("belongs to {self}, and {kubelet} is protected by the configuration"),
                "drain this machine there first, or lift units.protect",
            ),
            Owner::Namespace { .. } => (
                format!("belongs to {self}, and nothing here would start it again"),
                "stop it yourself (`nerdctl --namespace NAMESPACE stop NAME`), and start it after the run",
            ),
            // What a pod's restart policy is, only the control plane tells. And a kubelet that finds
            // such a pod stopped when it starts may turn it away for good, where the device plugin is
            // not there yet (kubernetes/kubernetes issue 125579).
            Owner::Kubernetes { daemon_set: false, .. } if !all_pods => (
                format!("belongs to {self}, which is of no DaemonSet and might not be started again"),
                "`kubectl drain NODE --ignore-daemonsets` first, or set containers.pods = \"all\"",
            ),
            Owner::Kubernetes { .. } => return None,
        };
        Some((why, remedy.to_owned()))
    }
}
