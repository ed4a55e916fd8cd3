// SPDX-License-Identifier: MIT
//! How containers are stopped.

use serde::{Deserialize, Serialize};

/// What to do with a container that its engine deletes when it stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutoRemove {
    /// Refuse the run, naming it, before anything is touched.
    #[default]
    Refuse,
    /// Recreate it from its definition, where its engine can (Docker).
    Recreate,
    /// Let it go; the journal names it.
    LetGo,
}

/// Which pods of a kubelet may be stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pods {
    /// Those of DaemonSets, which are sure to be started again.
    #[default]
    DaemonSets,
    /// All: somebody knows that each would be.
    All,
}

/// How containers are stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Containers {
    /// The longest time a container gets between the stop signal and SIGKILL, in seconds. A
    /// container's own stop timeout counts where it is shorter.
    pub stop_timeout_max: u64,
    /// How many containers are stopped or started at once; 0 for four a core.
    pub parallel: usize,
    /// What to do with containers started with `--rm`.
    pub auto_remove: AutoRemove,
    /// How long to wait for the health check of a container that was started again, in seconds, before
    /// those that depend on it are started; 0 not to wait.
    pub health_timeout: u64,
    /// Which pods may be stopped.
    pub pods: Pods,
    /// How long the kubelet gets until a pod's container runs again, in seconds.
    pub pods_timeout: u64,
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            stop_timeout_max: 60,
            parallel: 0,
            auto_remove: AutoRemove::Refuse,
            health_timeout: 0,
            pods: Pods::DaemonSets,
            pods_timeout: 300,
        }
    }
}
