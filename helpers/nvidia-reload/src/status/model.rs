// SPDX-License-Identifier: MIT
//! What the status shows, as data.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use holders::{Console, Holder, Module, Unexplained};
use ledger::{Act, Object, Run, Starter, Step};
use request::Request;
use serde::Serialize;

use step::{Plan, Reason, Root, Verdict, monotonic_usec};

use crate::expected::Took;
use crate::gpus::{Detail, Need};
use crate::put_back::PutBack;
use crate::users::Users;

/// The driver, loaded and on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// The version that is loaded, if it is.
    pub loaded: Option<String>,
    /// The version that the next load would bring, if there is one for this kernel.
    pub on_disk: Option<String>,
    /// Whether both are there and differ: programs with the new libraries do not start until the
    /// driver is reloaded. None when one of them is not known.
    pub mismatch: Option<bool>,
    /// Why no reload can help now, and what does; null where one may help.
    pub out_of_reach: Option<Reason>,
    /// Whether the kernel has the module `nvidia`, also where its version cannot be read.
    pub present: bool,
    /// The version of the libraries that programs find; null where that is not known.
    pub library: Option<String>,
}

/// A GPU, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// What it needs.
    #[serde(flatten)]
    pub need: Need,
    /// What else is known of it.
    #[serde(flatten)]
    pub detail: Detail,
}

/// A run that was refused before it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// When, in microseconds since 1970.
    pub usec: u64,
    /// Whether it was of a reset, rather than a reload or a stop.
    pub reset: bool,
    /// Whether only a reboot helps.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<Reason>,
}

impl Refusal {
    /// The run that was asked for last, where it was refused.
    ///
    /// # Errors
    /// Its plan is there and cannot be read.
    pub fn read(root: &Root) -> anyhow::Result<Option<Self>> {
        let Some(plan) = Plan::of_run(root, 0)?.filter(|plan| plan.verdict != Verdict::Ready) else {
            return Ok(None);
        };
        let age = monotonic_usec().saturating_sub(plan.made_usec);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as u64);
        let (reset, verdict, reasons) = (plan.reset, plan.verdict, plan.reasons);
        Ok(Some(Self { usec: now.saturating_sub(age), reset, verdict, reasons }))
    }
}

/// The step that is at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AtWork {
    /// Which.
    pub step: Step,
    /// What it says of it; empty where it says nothing.
    pub says: String,
    /// The target that it is for; null where systemd does not tell.
    pub target: Option<&'static str>,
}

/// What the machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing is stopped.
    InService,
    /// A run is under way.
    Busy,
    /// A run restores what it stopped.
    #[serde(rename = "giving-back")]
    Restoring,
    /// What uses the GPUs is stopped and stays so; the driver is loaded.
    Drained,
    /// The driver is unloaded and stays so.
    Offline,
    /// systemd does not tell.
    Unknown,
}

/// Whether the driver may be loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// No: the gate is shut.
    pub shut: bool,
    /// A run keeps NVIDIA's own services out.
    pub busy: bool,
}

/// A run, in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunInShort {
    /// Its id.
    pub id: String,
    /// When it began, in microseconds since 1970.
    pub opened_usec: u64,
    /// When its last line was written, in microseconds since 1970.
    pub last_usec: u64,
    /// How it ended; null while it is open.
    pub outcome: Option<ledger::Outcome>,
    /// Whether it was cancelled.
    pub cancelled: bool,
    /// The steps that failed.
    pub failures: Vec<(Step, String)>,
    /// What it took and has not restored.
    pub missing: Vec<Act>,
    /// Processes that it killed: they are not restarted.
    pub ended: Vec<ledger::Process>,
    /// The driver that was loaded before; null where that is not known.
    pub before: Option<String>,
    /// The driver that it loaded, where it got so far.
    pub after: Option<String>,
    /// Whether it was a reset of GPUs.
    pub reset: bool,
    /// Who started it; null where systemd alone knows.
    pub started_by: Option<Starter>,
    /// What it took, where it is over.
    pub took: Option<Took>,
}

impl From<&Run> for RunInShort {
    fn from(run: &Run) -> Self {
        Self {
            id: run.id.clone(),
            opened_usec: run.opened_usec,
            last_usec: run.last_usec,
            outcome: run.outcome,
            cancelled: run.cancelled,
            failures: run.failures.clone(),
            missing: run.missing().into_iter().cloned().map(Act::without_secrets).collect(),
            ended: run.killed().into_iter().cloned().collect(),
            before: driver_of(run.snapshot.modules.iter()),
            after: driver_of(run.acts.iter().filter_map(|act| match (&act.object, act.step) {
                (Object::Module(module), Step::ModprobeChain) => Some(module),
                _ => None,
            })),
            reset: run.snapshot.reset,
            started_by: run.snapshot.started_by.clone(),
            took: None,
        }
    }
}

/// The version of the driver among `modules`.
fn driver_of<'a>(modules: impl Iterator<Item = &'a ledger::Module>) -> Option<String> {
    modules.filter(|module| module.name == modules::DRIVER).filter_map(|module| module.version.clone()).last()
}

/// What the ledger tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Runs {
    /// Whether it could be read: it holds command lines of everyone, so only root may.
    pub visible: bool,
    /// The run that is open.
    pub open: Option<RunInShort>,
    /// The run that ended last.
    pub last: Option<RunInShort>,
    /// A run that was refused after that.
    pub refused: Option<Refusal>,
}

/// Everything that `status` shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// [`super::SCHEMA`].
    pub schema: &'static str,
    /// The driver, loaded and on disk.
    pub driver: Driver,
    /// What the machine is doing.
    pub state: State,
    /// The state of each target; null where systemd does not answer.
    pub targets: Option<BTreeMap<&'static str, String>>,
    /// Whether the driver may be loaded.
    pub gate: Gate,
    /// The loaded modules, dependents first.
    pub modules: Vec<Module>,
    /// The GPUs.
    pub gpus: Vec<Gpu>,
    /// Who holds the driver.
    pub holders: Vec<Holder>,
    /// Text consoles drawn on it.
    pub consoles: Vec<Console>,
    /// References that the holders do not account for.
    pub unexplained: Vec<Unexplained>,
    /// What could not be looked at, in sentences.
    pub unseen: Vec<String>,
    /// What the ledger tells.
    pub runs: Runs,
    /// The driver whose files were put back; null when the package manager or an installer wrote them last.
    pub put_back: Option<PutBack>,
    /// The driver whose libraries are found before those on disk, until the reload.
    pub healed: Option<slots::Healed>,
    /// A reload that waits until the GPUs are idle.
    pub request: Option<Request>,
    /// The lease that this machine has, or may have, from the fleet's lock.
    pub lease: Option<fleetlock::Lease>,
    /// The initramfs of the running kernel, where it holds another driver than the disk.
    pub initramfs: Option<Initramfs>,
    /// The step that is at work, while a run is under way.
    pub at_work: Option<AtWork>,
    /// The names of the system's containers, by id.
    pub container_names: BTreeMap<String, String>,
    /// The names of users.
    #[serde(skip)]
    pub users: Users,
}

/// What the next boot would load instead of the driver on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Initramfs {
    /// The archive.
    pub archive: String,
    /// The modules in it that are not those on disk.
    pub stale: Vec<initramfs::Packed>,
    /// The command that regenerates it, where one is known.
    pub remedy: Option<String>,
}
