// SPDX-License-Identifier: MIT
//! Services that failed because of the old driver: a run starts them when the new one works.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use ledger::Step;
use step::{Action, Config, Context, ServicesDown, services_there};

use crate::findings::Findings;
use crate::sibling::{SIBLING, STOP, answer};

/// NVIDIA's services that are down: those that failed because of the old driver the run starts.
pub(crate) fn ask(context: &Context, config: &Config) -> Result<ServicesDown> {
    // Most machines have none of them, or all of them up: a sibling is asked where there is one at all.
    match services_there(&context.root, config).next() {
        None => Ok(ServicesDown::default()),
        Some(_) => answer(Command::new(STOP).arg("list-failed"), Instant::now() + SIBLING),
    }
}

/// Adds those that failed to the plan; returns those that no unit wants.
pub(crate) fn add(
    down: Result<ServicesDown>,
    actions: &mut Vec<Action>,
    findings: &mut Findings,
) -> Vec<String> {
    let down = down.unwrap_or_else(|error| {
        findings.warn(
            format!("which services failed because of the old driver is not known: {error:#}"),
            "see whether they run after the reload (`systemctl --failed`)",
        );
        ServicesDown::default()
    });
    for (unit, how) in down.failed {
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
    down.unwanted
}
