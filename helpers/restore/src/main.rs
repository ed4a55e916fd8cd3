// SPDX-License-Identifier: MIT
//! Restores everything when the new driver works: the undos of the steps, on the way forward.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ledger::{Object, Run, Step, Unit};
use step::{Context, await_fabric, note_failed_services, stop_undos, undo_steps};

/// What is restored after a good run, in this order: the reverse of the taking. The settings come
/// first: workloads find the GPUs as they left them, and MIG cannot be set up under them.
const STEPS: [Step; 4] = [Step::Settings, Step::UnbindVt, Step::StopUnits, Step::DrainContainers];

fn main() -> ExitCode {
    step::main(Step::Restore, run, undo)
}

fn run(context: &Context) -> Result<()> {
    context.status("restoring what was stopped");
    let read = || context.ledger.read()?.context("there is no open run: start nvidia-reload.target");
    let mut failed: Vec<String> = note_failed_services(context, &read()?).err().into_iter().collect();
    // With what was noted.
    let run = read()?;
    // What computes comes when the fabric is there.
    let (containers, first): (Vec<Step>, Vec<Step>) =
        steps(&run).into_iter().partition(|step| *step == Step::DrainContainers);
    failed.extend(undo_steps(context, &first));
    if let Some(manager) = fabric_manager(&run)
        && let Err(error) = check_fabric(context, manager)
    {
        failed.push(format!("{error:#}"));
    }
    failed.extend(undo_steps(context, &containers));
    if !failed.is_empty() {
        bail!("not restored: {}", failed.join("; "));
    }
    Ok(())
}

/// The services that put GPUs into a fabric.
const FABRIC: [&str; 3] = ["nvidia-fabricmanager.service", "nvlsm.service", "nvidia-imex.service"];

/// The service that the fabric needs; none where there is no fabric.
fn fabric_manager(run: &Run) -> Option<&'static str> {
    let is_unit = |name: &str| run.acts.iter().any(|act| act.object.is_system_unit(name));
    let has_fabric = run.snapshot.seen.iter().any(|gpu| gpu.health.fabric.is_some());
    FABRIC.into_iter().find(|name| is_unit(name)).or(has_fabric.then_some(FABRIC[0]))
}

/// A GPU that does not come into the fabric computes nothing: that is not restored.
fn check_fabric(context: &Context, manager: &str) -> Result<()> {
    context.status("waiting for the fabric");
    context.needs(Duration::from_secs(6 * 60));
    let late = await_fabric().map_err(anyhow::Error::msg)?;
    if !late.is_empty() {
        let unit = Unit { name: manager.to_owned(), user: None, role: "fabric".to_owned() };
        let reason = format!("not in the fabric: {}", late.join("; "));
        context.warn(format!("{manager}: {reason}"));
        context.ledger.intent(Step::Restore, Object::Unit(unit))?.lost(reason)?;
    }
    Ok(())
}

/// What could not be restored is tried again by the steps' own undos, which come next. Where `run` was killed, the
/// unit that it waited for goes on, and is stopped before.
fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let left: Vec<Step> = STEPS.into_iter().filter(|step| !run.outstanding(*step).is_empty()).collect();
    let failed = stop_undos(&left);
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// The steps that took something.
fn steps(run: &Run) -> Vec<Step> {
    let took = |step: &Step| run.acts.iter().any(|act| act.step == *step);
    STEPS.into_iter().filter(took).collect()
}

#[cfg(test)]
mod tests {
    use ledger::{Event, Object};

    use super::*;

    #[test]
    fn those_steps_are_called_that_took_something_settings_first_and_containers_last() {
        for (took, expected) in [
            (&[][..], &[][..]),
            (&[Step::DrainContainers], &[Step::DrainContainers]),
            // The driver and what was killed are none of restore's business.
            (&[Step::KillHolders, Step::RmmodChain, Step::InstallDriver, Step::ModprobeChain], &[]),
            (
                &[Step::DrainContainers, Step::StopUnits, Step::StopUnits, Step::UnbindVt, Step::Settings],
                &[Step::Settings, Step::UnbindVt, Step::StopUnits, Step::DrainContainers],
            ),
        ] {
            let object = || Object::Gate { path: "any".into() };
            let intents =
                (1..).zip(took).map(|(id, step)| Event::Intent { id, step: *step, object: object() });
            let intents: Vec<Event> = intents.collect();
            assert_eq!(steps(&golden::run(&intents)), expected, "{took:?}");
        }
    }
}
