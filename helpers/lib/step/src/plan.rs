//! What a run would do, as preflight finds it and as `nvidia-reload plan --json` shows it.

use ledger::Step;
use serde::{Deserialize, Serialize};

use crate::Reason;

/// The name and version of the JSON that `nvidia-reload plan --json` prints.
pub const PLAN_SCHEMA: &str = "nvidia-reload.plan/1";

/// There while nvidia-reset.target has its run, which preflight opens as a reset then. Names the GPUs,
/// a line each; all where it is empty.
pub const RESET_REQUEST: &str = "/run/nvidia-reload/reset";

/// Whether a run may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing speaks against it.
    Ready,
    /// It may not: see the reasons.
    Refused,
    /// No reload can help: see the reasons.
    RebootRequired,
}

/// What a run would do to one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Who does it.
    pub step: Step,
    /// To what, as the ledger would name it.
    pub object: String,
    /// What is done, in words: `stop, start again afterwards`.
    pub what: String,
    /// Why it has to be.
    pub why: String,
    /// The processes concerned.
    pub pids: Vec<i32>,
    /// Whether it comes back by itself; false for a killed process.
    pub comes_back: bool,
}

/// The driver's version where it is loaded and where the next load would take it from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// `/sys/module/nvidia/version`; none when the driver is not loaded.
    pub loaded: Option<String>,
    /// The version that the module file on disk declares; none without one for this kernel.
    pub on_disk: Option<String>,
}

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_SCHEMA`].
    pub schema: String,
    /// A reset of the GPUs rather than a reload.
    #[serde(default)]
    pub reset: bool,
    /// Whether it may begin.
    pub verdict: Verdict,
    /// Why not; empty when it may.
    pub reasons: Vec<Reason>,
    /// What deserves attention and does not stop a run.
    pub warnings: Vec<Reason>,
    /// From which version to which.
    pub driver: Versions,
    /// The modules that would be unloaded, in that order, and loaded again in reverse.
    pub modules: Vec<String>,
    /// What would be done to whom, in order.
    pub actions: Vec<Action>,
    /// What is set on the GPUs, and would be set again.
    #[serde(default)]
    pub settings: Vec<ledger::Settings>,
}
