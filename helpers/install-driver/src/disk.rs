// SPDX-License-Identifier: MIT
//! Whether what is on disk can be loaded: preflight looked while the old driver was loaded, and the disk may have
//! changed since. On an offline machine that may be days, and this is the first step of its way on.

use std::time::Duration;

use anyhow::{Result, bail};
use ledger::Run;
use modules::{Disk, successors};
use request::{package_manager, wait_for_packages};
use step::{Context, OFFLINE, OurUnits, Stop};

/// How long a package manager is waited for: an offline machine stays offline meanwhile, and of another the
/// workloads are out.
const WAIT: Duration = Duration::from_secs(10 * 60);

/// Whether the driver on disk is there, all of one version, and not being replaced.
///
/// # Errors
/// It is not. An offline machine stays so; any other run fails, which says nothing about the new driver.
pub(crate) fn can_be_loaded(context: &Context, run: &Run) -> Result<()> {
    let busy = package_manager(&context.root)?;
    let Some(wrong) = wrong(context, run, busy.map(|busy| busy.to_string())) else { return Ok(()) };
    let is_offline = OurUnits::ask()?.is_up(OFFLINE);
    if !is_offline && !wrong.disk {
        return Ok(());
    }
    let busy = wait_for_packages(context, WAIT)?;
    judge(self::wrong(context, run, busy.map(|busy| busy.to_string())), is_offline)
}

/// What follows after the wait. A package manager that is still at work stops only an offline machine, which loses
/// nothing by staying so.
fn judge(wrong: Option<Wrong>, is_offline: bool) -> Result<()> {
    match wrong {
        Some(wrong) if is_offline => {
            let remedy = "let it be installed completely, then `nvidia-reload start`; `systemctl stop nvidia-offline.target` loads the driver that was loaded before";
            Err(Stop::not_in_this_run(wrong.what, remedy).into())
        }
        Some(wrong) if wrong.disk => bail!("{}", wrong.what),
        _ => Ok(()),
    }
}

/// What keeps the driver on disk from being loaded now.
struct Wrong {
    /// Whether it is what is on disk, and not only that somebody is at work there.
    disk: bool,
    what: String,
}

fn wrong(context: &Context, run: &Run, busy: Option<String>) -> Option<Wrong> {
    // Opened for each look: it remembers what it has read.
    let disk = Disk::open(&context.root).and_then(|disk| successors(&disk, &run.snapshot.modules));
    match (disk, busy) {
        (Ok(_), None) => None,
        (Ok(_), Some(busy)) => {
            Some(Wrong { disk: false, what: format!("a package manager is at work: {busy}") })
        }
        (Err(error), _) => {
            Some(Wrong { disk: true, what: format!("the driver on disk cannot be loaded: {error:#}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_driver_is_never_loaded_and_an_offline_machine_stays_so() {
        let wrong = |disk| Some(Wrong { disk, what: "it is half".into() });
        for (wrong, is_offline, expected) in [
            (None, false, "goes on"),
            (None, true, "goes on"),
            (wrong(false), false, "goes on"),
            // It fails: the old driver and the workloads are restored.
            (wrong(true), false, "it is half"),
            (wrong(false), true, "refused, the open run stays as it is: it is half"),
            (wrong(true), true, "refused, the open run stays as it is: it is half"),
        ] {
            let judged =
                judge(wrong, is_offline).map_or_else(|error| error.to_string(), |()| "goes on".into());
            assert!(judged.starts_with(expected), "{judged}");
        }
    }
}
