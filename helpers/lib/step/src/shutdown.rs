// SPDX-License-Identifier: MIT
//! Whether the machine is going down.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::Context;
use crate::sibling::undo_unit;
use crate::starter::unit;

/// The sibling that speaks D-Bus, so that the helpers that ask need not.
const ASKED: &str = "/usr/libexec/nvidia-reload/stop-units";

/// How long it may take: PID 1 and the bus, one after the other.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whether the system manager is shutting the machine down.
///
/// An undo that starts workloads asks first: what is started now would be stopped again at once,
/// and the ledger would call it restored. At shutdown it leaves them to the next boot.
///
/// # Errors
/// It is not known: the helper that knows does not answer.
pub fn system_is_stopping() -> Result<bool> {
    ask(Path::new(ASKED))
}

/// The same for the undo of a step. In the undo's own unit nothing has to be asked: systemd starts no unit on the way
/// down, and stops the one that runs then.
///
/// # Errors
/// It is not known.
pub fn undo_is_too_late(context: &Context) -> Result<bool> {
    too_late(context, system_is_stopping)
}

fn too_late(context: &Context, ask: impl FnOnce() -> Result<bool>) -> Result<bool> {
    if unit(&context.root).is_some_and(|unit| unit == undo_unit(context.step)) {
        return Ok(false);
    }
    ask()
}

fn ask(helper: &Path) -> Result<bool> {
    let asked = || format!("{} is-stopping", helper.display());
    let mut command = Command::new(helper);
    command.arg("is-stopping");
    let (status, _) = bounded::child(&mut command, Instant::now() + PATIENCE, 0)
        .with_context(|| format!("run {}", asked()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("{}: ended with {status}, neither yes nor no", asked()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ledger::{Ledger, Step};

    use super::*;
    use crate::Root;

    #[test]
    fn the_undos_own_unit_asks_nobody() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let ledger = Ledger::new(root.path("/lib"), "boot");
        let groups = root.path("/proc/self/cgroup");
        fs::create_dir_all(root.path("/proc/self")).expect("creates");
        let context = Context { step: Step::DrainContainers, root, ledger };
        for (group, asks) in [
            ("nvidia-reload-undo-drain-containers.service", false),
            // At the stop of the step, the machine may be going down.
            ("nvidia-reload-drain-containers.service", true),
            ("nvidia-reload-undo-stop-units.service", true),
        ] {
            fs::write(&groups, format!("0::/system.slice/{group}\n")).expect("writes");
            let answer = too_late(&context, || bail!("asked"));
            assert_eq!(answer.is_err(), asks, "{group}");
        }
    }

    #[test]
    fn only_a_clear_answer_counts() {
        let ask = |helper: &str| ask(Path::new(helper));
        assert!(ask("/bin/true").expect("answers"));
        assert!(!ask("/bin/false").expect("answers"));
        let error = ask("/no/such/helper").expect_err("no answer");
        assert!(error.to_string().contains("/no/such/helper is-stopping"), "{error}");
    }
}
