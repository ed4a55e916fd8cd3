// SPDX-License-Identifier: MIT
//! Services that failed because of the old driver: a run starts them when the new one works.

use std::process::Command;

use anyhow::Result;
use ledger::Step;
use step::{Action, Config, Context, services_there};

use crate::findings::Findings;
use crate::sibling::{STOP, answer};

/// The services that failed because of the old driver and that the run starts, and how each failed.
pub(crate) fn ask(context: &Context, config: &Config) -> Result<Vec<(String, String)>> {
    // Most machines have none of them, or all of them up: a sibling is asked where there is one at all.
    match services_there(&context.root, config).next() {
        None => Ok(Vec::new()),
        Some(_) => answer(Command::new(STOP).arg("list-failed")),
    }
}

/// Adds them to the plan.
pub(crate) fn add(failed: Result<Vec<(String, String)>>, actions: &mut Vec<Action>, findings: &mut Findings) {
    let failed = failed.unwrap_or_else(|error| {
        findings.warn(
            format!("which services failed because of the old driver is not known: {error:#}"),
            "see whether they run after the reload (`systemctl --failed`)",
        );
        Vec::new()
    });
    for (unit, how) in failed {
        if actions.iter().any(|action| action.object == unit) {
            continue;
        }
        actions.push(Action {
            step: Step::Restore,
            object: unit,
            what: "start".into(),
            why: format!("it {how}"),
            pids: Vec::new(),
            comes_back: true,
        });
    }
}
