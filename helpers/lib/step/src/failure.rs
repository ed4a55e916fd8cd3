// SPDX-License-Identifier: MIT
//! The machine as it was when a step failed, saved before anything is rolled back: afterwards the journal may be
//! gone, the kernel's log has the rollback's messages, and another driver is loaded.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use ledger::Step;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::excerpt::{Entry, Excerpt, Of, excerpt};
use crate::{Context, text};

/// The name and version of the JSON.
pub const FAILURE_SCHEMA: &str = "nvidia-reload.failure/1";

/// How long all of it may take: workloads wait.
const TIME: Duration = Duration::from_secs(2);

/// As many entries of each kind are saved, the last ones; and as many lines of /proc/modules.
const MOST_ENTRIES: usize = 300;

/// A longer plan is not saved, in bytes.
const LONGEST_PLAN: u64 = 1 << 20;

/// What was saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// [`FAILURE_SCHEMA`].
    pub schema: String,
    /// The run's id.
    pub run: String,
    /// The step that failed.
    pub step: Step,
    /// Why, as it said.
    pub reason: String,
    /// When this was written, in microseconds since 1970.
    pub at_usec: u64,
    /// The driver that was loaded then; null for none.
    pub loaded: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The distribution, as /etc/os-release names it.
    pub distribution: Option<String>,
    /// The version of this program.
    pub nvidia_reload: String,
    /// The lines of /proc/modules that are about the driver.
    pub modules: Vec<String>,
    /// The run's plan, as `nvidia-reload plan --json` has it.
    pub plan: Option<Value>,
    /// What our units had written to the journal.
    pub journal: Vec<Entry>,
    /// What the kernel had said since the run began.
    pub kernel_log: Vec<Entry>,
    /// What could not be read, in sentences.
    pub unseen: Vec<String>,
}

/// Saves it with the open run, if nothing is saved of that yet. That it cannot be saved changes nothing about the
/// rollback.
pub(crate) fn save(context: &Context, step: Step, reason: &str) {
    if let Err(error) = try_save(context, step, reason) {
        context.warn(format!("the state at the failure is not saved: {error:#}"));
    }
}

fn try_save(context: &Context, step: Step, reason: &str) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    if context.ledger.failure(&run)?.is_some() {
        return Ok(());
    }
    let until = Instant::now() + TIME;
    let root = &context.root;
    let mut unseen = Vec::new();
    let line = |path: &str| fs::read_to_string(root.path(path)).ok().map(|text| text.trim().to_owned());
    let plan = plan(context).unwrap_or_else(|error| {
        unseen.push(format!("The plan: {error:#}."));
        None
    });
    let mut entries = |of: Of| {
        // A fixture has no journal.
        if !root.is_system() {
            return Vec::new();
        }
        let boots = [context.ledger.boot().to_owned()];
        // Preflight says what it finds before it opens the run.
        let since_usec = run.opened_usec.saturating_sub(10_000_000);
        let asked = Excerpt { of, boots: &boots, since_usec, until_usec: None, most: MOST_ENTRIES };
        excerpt(&asked, until).unwrap_or_else(|error| {
            let what = if of == Of::Kernel { "The kernel's messages" } else { "The journal" };
            unseen.push(format!("{what}: {error:#}."));
            Vec::new()
        })
    };
    let (kernel_log, journal) = (entries(Of::Kernel), entries(Of::OurUnits));
    let failure = Failure {
        schema: FAILURE_SCHEMA.to_owned(),
        run: run.id.clone(),
        step,
        reason: text::line(reason),
        at_usec: now_usec(),
        loaded: line("/sys/module/nvidia/version"),
        kernel: line("/proc/sys/kernel/osrelease"),
        distribution: line("/etc/os-release").and_then(|text| distribution(&text)),
        nvidia_reload: env!("CARGO_PKG_VERSION").to_owned(),
        modules: line("/proc/modules").map(|text| modules(&text)).unwrap_or_default(),
        plan,
        journal,
        kernel_log,
        unseen,
    };
    let text = serde_json::to_vec(&failure).context("encode the state at the failure")?;
    context.ledger.save_failure(&run, &text).map(drop)
}

/// The time, in microseconds since 1970.
pub fn now_usec() -> u64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

fn plan(context: &Context) -> Result<Option<Value>> {
    let path = context.root.path(crate::plan::PATH);
    let size = match fs::metadata(&path) {
        Ok(data) => data.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
    };
    if size > LONGEST_PLAN {
        anyhow::bail!("{} has {size} bytes", path.display());
    }
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display())).map(Some)
}

fn distribution(text: &str) -> Option<String> {
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(text::line(name.trim_matches('"')))
}

/// The driver's own modules and those that stand on them.
fn modules(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains("nvidia"));
    lines.take(MOST_ENTRIES).map(text::line).collect()
}

#[cfg(test)]
mod tests {
    use ledger::{Ledger, Snapshot};

    use super::*;
    use crate::{Plan, Root};

    #[test]
    fn the_first_failure_is_saved_with_the_plan_and_the_versions_of_that_moment() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let write = |path: &str, text: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("creates");
            fs::write(path, text).expect("writes");
        };
        write("/sys/module/nvidia/version", "550.163.01\n");
        write("/proc/sys/kernel/osrelease", "6.1.0-9\n");
        write("/etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n");
        write("/proc/modules", "nvidia 1 2 nvidia_uvm, Live 0x0\next4 1 0 - Live 0x0\n");
        fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        Plan::refused(Vec::new()).leave(&root).expect("writes");
        let ledger = Ledger::new(root.path(ledger::DIRECTORY), "b");
        let context = Context { step: Step::Verify, root: root.clone(), ledger };
        save(&context, Step::Verify, "no run is open");
        let id = context.ledger.open(Snapshot::default()).expect("opens");
        save(&context, Step::Verify, "GPU 0 is\x1b gone");
        write("/sys/module/nvidia/version", "535.261.03\n");
        save(&context, Step::Restore, "a consequence");
        let run = context.ledger.read().expect("reads").expect("is open");
        let text = context.ledger.failure(&run).expect("reads").expect("is saved");
        let saved: Failure = serde_json::from_slice(&text).expect("is one");
        assert_eq!((saved.run, saved.step, saved.reason.as_str()), (id, Step::Verify, r"GPU 0 is\x1b gone"));
        assert_eq!(saved.loaded.as_deref(), Some("550.163.01"));
        assert_eq!(saved.distribution.as_deref(), Some("Debian GNU/Linux 12"));
        assert_eq!(saved.modules, ["nvidia 1 2 nvidia_uvm, Live 0x0"]);
        assert_eq!(saved.plan.and_then(|plan| plan.get("verdict").cloned()), Some("refused".into()));
        assert_eq!((saved.kernel.as_deref(), saved.unseen), (Some("6.1.0-9"), Vec::new()));
    }
}
