//! Compares what serves now with what should. Its success is the point of no return.

mod messages;
mod nvml;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use ledger::{Run, Step};
use modules::{Disk, State, chain, gpus, keep, loaded, nodes};
use step::Context;

/// What else this helper does.
#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Keep the modules of the loaded driver for the way back, if the disk has them.
    Keep,
}

fn main() -> ExitCode {
    step::main_with(Step::Verify, run, |_| Ok(()), extra)
}

fn extra(context: &Context, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Keep => keep_modules(context, &Disk::open(&context.root)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    let disk = Disk::open(&context.root)?;
    // NVML takes its time. It is waited for in any case: as long as it runs it holds the driver.
    let (rest, answer) = std::thread::scope(|scope| {
        let answer = scope.spawn(nvml::ask);
        (all_but_nvml(context, &run, &disk), answer.join())
    });
    let answer = answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    rest?;
    nvml::judge(context, answer)?;
    messages::check(context)?;
    context.ledger.commit()?;
    // From here on the new driver stays, whatever happens to the rest.
    keep_modules(context, &disk)
}

fn all_but_nvml(context: &Context, run: &Run, disk: &Disk) -> Result<()> {
    modules_serve(context, run, disk)?;
    nodes::check(&context.root, &run.snapshot.nodes).context("a device node leads elsewhere")?;
    gpus_are_there(context, run)
}

/// Every module that was loaded is, and is the one on disk.
fn modules_serve(context: &Context, run: &Run, disk: &Disk) -> Result<()> {
    for module in &run.snapshot.modules {
        let name = &module.name;
        let Some(now) = loaded(&context.root, name)? else { bail!("{name} is not loaded") };
        if now.state != State::Live {
            bail!("{name} is not live but {:?}", now.state);
        }
        let file = disk.find(name)?.with_context(|| format!("{name} has no file on disk any more"))?;
        if !file.is(&now.module) {
            bail!(
                "{name} serves in version {}, and {} is version {}",
                now.module.version.as_deref().unwrap_or("unknown"),
                file.path.display(),
                file.version.as_deref().unwrap_or("unknown")
            );
        }
    }
    Ok(())
}

/// Every GPU that the driver had is bound to it again.
fn gpus_are_there(context: &Context, run: &Run) -> Result<()> {
    let now = gpus(&context.root)?;
    let missing: Vec<&str> =
        run.snapshot.gpus.iter().filter(|gpu| !now.contains(gpu)).map(String::as_str).collect();
    if !missing.is_empty() {
        bail!("the driver does not serve {} any more", missing.join(", "));
    }
    Ok(())
}

fn keep_modules(context: &Context, disk: &Disk) -> Result<()> {
    let loaded = chain(&context.root)?;
    match keep(&context.root, disk, &loaded).context("keep the driver's modules for the way back")? {
        Some(version) => context.info(format!("version {version} is kept for the way back")),
        None if loaded.is_empty() => {}
        None => context.warn("the loaded driver is not the one on disk: it cannot be kept for the way back"),
    }
    Ok(())
}
