// SPDX-License-Identifier: MIT
//! Ends a run that failed, or that was interrupted.
//!
//! systemd has undone the steps by then. Usually everything is restored, and preflight's undo has read the state back and
//! closed the run. Otherwise this tries once more, and then closes the run with the list of what is not restored.

#![forbid(unsafe_code)]

mod decide;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use decide::{Decision, decide};
use ledger::{Object, Run, Step};
use modules::{
    DRIVER, Disk, Source, Unloaded, chain, differences, driver_version, gate, load, loaded, nodes, unload,
};
use step::{
    Context, Leftovers, Order, OurUnits, RELOAD, finish, is_switched_off, order_unit, undo_limit, undo_steps,
};

/// A module that nothing uses goes at once, or never.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the loads of a boot's driver may take.
const LOADS: Duration = Duration::from_secs(5 * 60);

/// What comes before and between the undos may take that long (TimeoutStartSec=); for those more is asked for.
const ALL: Duration = Duration::from_secs(20 * 60);

/// How often systemd is asked whether the steps are undone.
const INTERVAL: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    step::main(Step::Rollback, run, |_| Ok(()))
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?;
    if run.is_none() {
        context.ledger.sweep()?;
    }
    // What systemd does not report is not guessed: a run that has failed cannot be at work any more.
    let units = match OurUnits::ask() {
        Ok(units) => units,
        Err(error) if run.as_ref().is_some_and(Run::has_failed) => {
            context.warn(format!("{error:#}"));
            OurUnits::default()
        }
        Err(error) => return Err(error),
    };
    let is_off = is_switched_off(&context.root)?;
    match decide(run.as_ref(), context.ledger.boot(), &units, is_off) {
        Decision::Nothing(why) => {
            context.info(why);
            Ok(())
        }
        Decision::End { steps } => {
            if steps {
                stop(context);
                // The steps have taken theirs.
                context.needs(ALL);
            }
            let id = run.map(|run| run.id);
            // Another may have begun while the steps were undone.
            match context.ledger.read()?.filter(|run| Some(&run.id) == id.as_ref()) {
                Some(run) if run.boot != context.ledger.boot() => of_another_boot(context, &run),
                Some(run) => end(context, &run),
                None => Ok(()),
            }
        }
    }
}

/// Stops the steps, and with them the targets, and waits until they are undone: systemd knows the order. What they
/// leave is done here afterwards.
fn stop(context: &Context) {
    // All others require it.
    let first = Step::Preflight.unit();
    context.info(format!("the steps of the run are still up: {first} is stopped, and all with it"));
    if let Err(error) = order_unit(Order::Stop, &first) {
        context.warn(error.to_string());
    }
    let all: Duration = Step::ALL.into_iter().map(undo_limit).sum();
    context.needs(all + ALL);
    let until = Instant::now() + all;
    loop {
        match OurUnits::ask() {
            Ok(units) if !units.has_steps() => return,
            Ok(_) if Instant::now() < until => std::thread::sleep(INTERVAL),
            Ok(units) => return context.warn(format!("{} is still not undone", units.up.join(", "))),
            Err(error) => return context.warn(format!("{error:#}")),
        }
    }
}

/// The driver that is on disk is what a boot takes.
fn of_another_boot(context: &Context, open: &Run) -> Result<()> {
    let goes_back = goes_back(open);
    if goes_back {
        // Before the workloads, which need a driver.
        for problem in undo_steps(context, &[Step::InstallDriver]) {
            context.warn(problem);
        }
        if let Err(error) = match_disk(context, open) {
            context.warn(format!("the driver on disk is not loaded in place of the boot's: {error:#}"));
        }
    }
    conclude(context, goes_back)
}

/// Whether the files on disk are exchanged for the previous ones: only where the run had exchanged them, or had seen
/// the driver fail.
fn goes_back(run: &Run) -> bool {
    let was_exchanged = run.acts.iter().any(|act| matches!(act.object, Object::DriverFiles(_)));
    !run.committed && (run.driver_failed || was_exchanged)
}

/// Ends the run of another boot. What is not restored comes before what is wrong with the driver.
fn conclude(context: &Context, goes_back: bool) -> Result<()> {
    let ended = context.ledger.read()?.map_or(Ok(()), |run| end(context, &run));
    let matched = if goes_back { reload_on_mismatch(context) } else { Ok(()) };
    ended.and(matched)
}

/// A boot that met a half driver has loaded the wrong one, or none, and made no device nodes: what is on disk
/// is loaded in its place, if nothing uses that yet. Else the reload that is started afterwards does it.
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
    let until = Instant::now() + LOADS;
    for name in names {
        if loaded(root, name)?.is_none()
            && let Some(file) = slots::find(&disk, name)?
        {
            context.info(format!("{} is loaded", file.path.display()));
            load(root, &disk, &Source::Disk(file), until)?;
        }
    }
    for change in nodes::refresh(root, &open.snapshot.nodes)? {
        context.info(change.to_string());
    }
    Ok(())
}

/// The boot may have loaded what an install left half done, before the files were put back: then what is
/// on disk now is loaded as after any other change of the disk.
fn reload_on_mismatch(context: &Context) -> Result<()> {
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

/// The steps whose undo has something to do, in the order in which they are undone.
fn steps_to_undo(run: &Run) -> Vec<Step> {
    let has_work = |step: &Step| {
        !run.outstanding(*step).is_empty()
            // The power may have gone after the new driver was found to fail, and before its files went.
            || (*step == Step::InstallDriver && run.driver_failed && !run.committed)
    };
    Step::TAKING.into_iter().rev().filter(has_work).collect()
}

fn end(context: &Context, run: &Run) -> Result<()> {
    let steps = steps_to_undo(run);
    for problem in undo_steps(context, &steps) {
        context.warn(problem);
    }
    // Also where the ledger does not say that it is shut.
    if let Err(error) = gate::open(&context.root) {
        context.warn(format!("{error:#}"));
    }
    let closed =
        finish(context, Leftovers::GiveUp, |run| differences(&context.root, run, context.ledger.boot()));
    fleetlock::settle(context);
    if closed?.is_none() && context.ledger.read()?.is_some() {
        bail!("the machine is going down before everything is restored: the next boot goes on");
    }
    Ok(())
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
