//! Ends a run that failed, was given up, or was cut off by a reboot.
//!
//! systemd has unwound the steps by then; mostly they gave everything back, and preflight's undo has
//! read back that the machine is as it was and closed the run. What is left is tried once more here,
//! and then the run is closed with the list of what is not back.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand;
use ledger::Step;
use modules::{DRIVER, Disk, differences, driver_version};
use step::{Context, Leftovers, Order, finish, order_unit, undo_steps};

/// What loads the driver that is on disk.
const RELOAD: &str = "nvidia-reload.target";

/// What else this helper does.
#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// At boot: end a run of an earlier boot; one of this boot is left alone.
    Recover,
}

fn main() -> ExitCode {
    step::main_with(Step::Rollback, run, |_| Ok(()), |context, Verb::Recover| recover(context))
}

fn recover(context: &Context) -> Result<ExitCode> {
    match context.ledger.read()? {
        Some(open) if open.boot != context.ledger.boot() => {
            run(context)?;
            if open.acts.iter().any(|act| act.step == Step::InstallDriver) {
                in_step(context)?;
            }
        }
        _ => context.info("no run was cut off by a reboot"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The boot may have loaded what an install left half done, before the files were put back: then what is
/// on disk now is loaded as after any other change of the disk.
fn in_step(context: &Context) -> Result<()> {
    let loaded = driver_version(&context.root)?;
    let on_disk = Disk::open(&context.root)?.find(DRIVER)?.and_then(|file| file.version);
    if let (Some(loaded), Some(on_disk)) = (&loaded, &on_disk)
        && loaded != on_disk
    {
        context.warn(format!(
            "the boot has loaded driver {loaded}, and {on_disk} is on disk again: {RELOAD} is started"
        ));
        order_unit(Order::Queue, RELOAD, None)?;
    }
    Ok(())
}

fn run(context: &Context) -> Result<()> {
    // It may come late: after the unwinding closed the run, or even after a later run's success.
    let Some(run) = context.ledger.read()? else {
        context.info("no run is open: there is nothing left to give back");
        return Ok(());
    };
    // The power may have gone after the new driver was found not to serve, and before its files went.
    let owes = |step: &Step| {
        !run.outstanding(*step).is_empty()
            || (*step == Step::InstallDriver && run.driver_failed && !run.committed)
    };
    let steps: Vec<Step> = Step::TAKING.into_iter().rev().filter(owes).collect();
    for problem in undo_steps(&steps) {
        context.warn(problem);
    }
    let closed =
        finish(context, Leftovers::GiveUp, |run| differences(&context.root, run, context.ledger.boot()))?;
    if closed.is_none() {
        bail!("the machine is going down before everything is back: the next boot goes on");
    }
    Ok(())
}
