//! Ends a run that failed, was given up, or was cut off by a reboot.
//!
//! systemd has unwound the steps by then; mostly they gave everything back, and preflight's undo has
//! read back that the machine is as it was and closed the run. What is left is tried once more here,
//! and then the run is closed with the list of what is not back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use ledger::{Run, Step};
use modules::{
    DRIVER, Disk, Source, Unloaded, chain, differences, driver_version, load, loaded, nodes, unload,
};
use step::{Context, Leftovers, Order, finish, order_unit, undo_steps};

/// A module that nobody uses goes at once, or never.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let cut_off = context.ledger.read()?.filter(|open| open.boot != context.ledger.boot());
    let Some(open) = cut_off else {
        context.info("no run was cut off by a reboot");
        return Ok(ExitCode::SUCCESS);
    };
    let was_exchanged = open.acts.iter().any(|act| act.step == Step::InstallDriver);
    let goes_back = !open.committed && (open.driver_failed || was_exchanged);
    if goes_back {
        // Before the workloads, which need a driver.
        for problem in undo_steps(&[Step::InstallDriver]) {
            context.warn(problem);
        }
        if let Err(error) = match_disk(context, &open) {
            context.warn(format!("the driver on disk is not loaded in place of the boot's: {error:#}"));
        }
    }
    let ended = run(context);
    if goes_back {
        in_step(context)?;
    }
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// A boot that met a half driver has loaded the wrong one, or none, and made no device nodes: what is on disk
/// is loaded in its place, if nobody uses that yet. Else the reload that is started afterwards does it.
fn match_disk(context: &Context, open: &Run) -> Result<()> {
    let root = &context.root;
    let disk = Disk::open(root)?;
    let chain = chain(root)?;
    let mut names: Vec<&str> = open.snapshot.modules.iter().map(|module| module.name.as_str()).collect();
    let of_boot = driver_version(root)?;
    if of_boot.is_some() && of_boot != slots::find(&disk, DRIVER)?.and_then(|file| file.version) {
        if chain.iter().any(|module| module.users() > 0) {
            return Ok(());
        }
        for module in &chain {
            let name = &module.module.name;
            match unload(name, PATIENCE)? {
                Unloaded::Gone => context.info(format!("{name}, which the boot has loaded, is unloaded")),
                other => bail!("{name} cannot be unloaded: {other:?}"),
            }
        }
        // Others' modules that stood on it.
        let more = chain.iter().rev().map(|module| module.module.name.as_str());
        names.extend(more.filter(|name| !open.snapshot.modules.iter().any(|module| module.name == *name)));
    }
    for name in names {
        if loaded(root, name)?.is_none()
            && let Some(file) = slots::find(&disk, name)?
        {
            context.info(format!("{} is loaded", file.path.display()));
            load(root, &disk, &Source::Disk(file))?;
        }
    }
    for change in nodes::refresh(root, &open.snapshot.nodes)? {
        context.info(change.to_string());
    }
    Ok(())
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
        order_unit(Order::Queue, RELOAD)?;
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
