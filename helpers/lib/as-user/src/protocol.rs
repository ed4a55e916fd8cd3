// SPDX-License-Identifier: MIT
//! What is said.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest line, in bytes.
pub const LONGEST: usize = 1 << 20;

/// The most bytes that root reads in one conversation.
pub const MOST: usize = 32 << 20;

/// Where root listens for the worker of a user.
pub fn socket(uid: u32) -> PathBuf {
    PathBuf::from(format!("/run/nvidia-reload/users/{uid}"))
}

/// A line from root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The answer has the same.
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What the worker is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// What a unit of the user's manager is: a [`Unit`].
    Unit {
        /// Its name.
        name: String,
    },
    /// What a stop of it takes along, and what would start it again: [`Dependents`].
    Dependents {
        /// Its name.
        name: String,
    },
    /// Stop these and wait; the files of transient ones are saved before: a [`Stopped`] each.
    StopUnits {
        /// In this order.
        units: Vec<Stop>,
        /// How long to wait.
        seconds: u64,
    },
    /// Start these and wait: a [`Started`] each.
    StartUnits {
        /// Their names, in this order.
        names: Vec<String>,
        /// How long to wait.
        seconds: u64,
    },
    /// The ids of the containers of the user's Podman that are up.
    Containers,
    /// What Podman says of a container, less the environment that is none of ours.
    Inspect {
        /// Its id.
        id: String,
    },
    /// The device nodes in the bundle of a container: [`Bundle`].
    Bundle {
        /// The directory, as the container's monitor names it.
        directory: String,
    },
    /// Stop a container.
    StopContainer {
        /// Its id.
        id: String,
        /// How long it gets between the stop signal and SIGKILL.
        seconds: u64,
    },
    /// Start a container.
    StartContainer {
        /// Its id.
        id: String,
    },
    /// Pause a container.
    Pause {
        /// Its id.
        id: String,
    },
    /// Let a container go on.
    Unpause {
        /// Its id.
        id: String,
    },
    /// The end: what was started for the conversation alone is stopped again.
    Bye,
}

/// A line from the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Of the request.
    pub id: u64,
    /// The answer, or why there is none.
    pub result: Result<Value, Fault>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// There is no such unit, no such container.
    Gone,
    /// The manager or Podman does not answer.
    Unreachable(String),
    /// It said no.
    Refused(u16, String),
    /// Something else.
    Other(String),
}

/// A unit of a user's manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Its principal name.
    pub name: String,
    /// Whether it runs, is about to, or has not ended yet.
    pub up: bool,
}

/// What hangs on a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependents {
    /// Sockets, timers and paths that start it.
    pub triggered_by: Vec<String>,
    /// What a stop takes along.
    pub stopped_along: Vec<String>,
}

/// A unit to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Its name.
    pub name: String,
    /// Whether it goes along with another: then a refusal of its own stop is no error.
    pub along: bool,
}

/// What came of a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Stopped {
    /// It does not run.
    Down,
    /// The manager does not stop it.
    Refused(String),
    /// It still runs, in this state.
    Up(String),
}

/// What came of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Started {
    /// It ran already.
    Already,
    /// It runs, or did its work.
    Started,
    /// Its start is in the manager's queue, behind something else.
    Queued,
    /// It does not run.
    Failed(String),
}

/// The character devices of a bundle: path, major, minor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// One for each node.
    pub nodes: Vec<(String, u32, u32)>,
}
