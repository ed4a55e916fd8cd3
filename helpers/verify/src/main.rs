// SPDX-License-Identifier: MIT
//! Compares the loaded driver and the GPUs with what they should be. Its success is the point of no return.

#![forbid(unsafe_code)]

mod check;
mod fabric;
mod gpus;
mod nvml;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use ledger::{Run, Step};
use modules::{Disk, State, chain, changed_parameters, gpus, loaded, nodes};
use slots::{lock_to_save, save};
use step::Context;

/// What else this helper does.
#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Save the loaded driver to a slot, if it is the one on disk.
    SaveDriver,
    /// Wait until the GPUs are in the fabric, and say as JSON which are not; changes nothing.
    #[command(hide = true)]
    Fabric,
    /// Compare without a run; where the driver works, the lease of the fleet's lock is to be released.
    #[command(hide = true)]
    Steady,
    /// Compare without a run, and say as JSON what was found; changes nothing.
    Check {
        /// Run the configured smoke test, too.
        #[arg(long)]
        smoke: bool,
    },
}

fn main() -> ExitCode {
    step::main_with(Step::Verify, run, |_| Ok(()), extra)
}

fn extra(context: &Context, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::SaveDriver => {
            save_driver(context, &Disk::open(&context.root)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Fabric => fabric::wait(context),
        Verb::Steady => check::steady(context),
        Verb::Check { smoke } => check::check(context, smoke),
    }
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    // NVML takes its time. It is waited for in any case: as long as it runs it holds the driver.
    let (disk, state) = std::thread::scope(|scope| {
        let state = scope.spawn(nvml::ask);
        (all_but_nvml(context, &run), state.join())
    });
    let state = state.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // A driver that is the wrong one has the wrong NVML as well: what NVML says comes second.
    let (disk, state) = (disk?, state?);
    nvml::judge(context, &run.snapshot.seen, state.as_ref())?;
    for changed in changed_parameters(&context.root, &run.snapshot.modules)? {
        context.warn(changed.to_string());
    }
    context.ledger.commit()?;
    // What packages asked for has been done, by this run or another.
    if let Err(error) = request::forget(&context.root) {
        context.warn(format!("{error:#}"));
    }
    // The next boot is looked at beside the rest, if there is anything to look at.
    if let Err(error) = initramfs::note(&context.root, &disk) {
        context.warn(format!("cannot check whether the initramfs matches: {error:#}"));
    }
    Ok(())
}

/// Checks what needs no NVML. Returns what is on disk.
fn all_but_nvml(context: &Context, run: &Run) -> Result<Disk> {
    let disk = Disk::open(&context.root)?;
    modules_match(context, run.snapshot.modules.iter().map(|module| module.name.as_str()), &disk)?;
    nodes::check(&context.root, &run.snapshot.nodes).context("a device node leads elsewhere")?;
    gpus_are_there(context, &run.snapshot.gpus)?;
    Ok(disk)
}

/// Every one of these modules is loaded, and is the one on disk.
fn modules_match<'a>(context: &Context, names: impl Iterator<Item = &'a str>, disk: &Disk) -> Result<()> {
    for name in names {
        let Some(now) = loaded(&context.root, name)? else { bail!("{name} is not loaded") };
        if now.state != State::Live {
            bail!("{name} is not live but {:?}", now.state);
        }
        let file = disk.find(name)?.with_context(|| format!("{name} has no file on disk any more"))?;
        if !file.is(&now.module) {
            bail!(
                "{name} is loaded in version {}, and {} is version {}",
                now.module.version.as_deref().unwrap_or("unknown"),
                file.path.display(),
                file.version.as_deref().unwrap_or("unknown")
            );
        }
    }
    Ok(())
}

/// Every GPU that the driver had is bound to it again.
fn gpus_are_there(context: &Context, before: &[String]) -> Result<()> {
    let now = gpus(&context.root)?;
    let missing: Vec<&str> = before.iter().filter(|gpu| !now.contains(gpu)).map(String::as_str).collect();
    if !missing.is_empty() {
        bail!("the driver no longer has {}", missing.join(", "));
    }
    Ok(())
}

fn save_driver(context: &Context, disk: &Disk) -> Result<()> {
    // Before anything is looked for: a run takes it, too, before it is opened.
    let _lock = lock_to_save(&context.root)?;
    // What is on disk in the middle of an exchange, or after one that was cut off, is nothing to go back to. A
    // run that ends well has the driver saved after its commit.
    if context.ledger.read()?.is_some_and(|run| !run.committed) {
        context.info("a run is open: the driver is saved when it has ended");
        return Ok(());
    }
    let loaded = chain(&context.root)?;
    match save(&context.root, disk, &loaded).context("save the driver to a slot")? {
        Some(version) => context.info(format!("driver {version} is saved to a slot")),
        None if loaded.is_empty() => {}
        None => context.warn("the loaded driver is not the one on disk: it cannot be saved to a slot"),
    }
    Ok(())
}
