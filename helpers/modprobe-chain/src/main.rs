//! Loads exactly the modules that were loaded, from what is on disk now, and opens the gate.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ledger::{Object, Run, Step};
use modules::{Disk, File, Source, Stuck, Unloaded, chain, gate, load, loaded, nodes, successors, unload};
use step::Context;

/// How long the undo waits for programs that look at the GPU and go.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long all loads together may take (TimeoutStartSec= has to last for the device nodes as well).
const LOADS: Duration = Duration::from_secs(8 * 60);

/// What the undo may take.
const UNDO: Duration = Duration::from_secs(5 * 60);

fn main() -> ExitCode {
    step::main(Step::ModprobeChain, run, undo)
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    let disk = Disk::open(&context.root)?;
    let files = successors(&disk, &run.snapshot.modules)?;
    let until = Instant::now() + LOADS;
    for file in &files {
        context.status(format!("loading {} {}", file.name, file.version.as_deref().unwrap_or("")));
        match loaded(&context.root, &file.name)? {
            // Somebody was faster.
            Some(now) if now.trouble().is_none() && file.is(&now.module) => continue,
            Some(now) if now.trouble().is_some() => bail!("{}", now.trouble().unwrap_or_default()),
            Some(now) => bail!(
                "{} is loaded in version {} although it was unloaded",
                file.name,
                now.module.version.as_deref().unwrap_or("unknown")
            ),
            None => {}
        }
        let id = context.ledger.intent(Step::ModprobeChain, Object::Module(described(file)))?;
        match load(&context.root, &disk, &Source::Disk(file.clone()), until) {
            Ok(()) => context.ledger.done(id)?,
            Err(error) => {
                // A load that the kernel refused has left nothing behind; one that is loaded under
                // another version has, and the undo looks for itself.
                if loaded(&context.root, &file.name)?.is_none() {
                    context.ledger.failed(id, format!("{error:#}"))?;
                }
                return Err(error);
            }
        }
    }
    for change in nodes::refresh(&context.root, &run.snapshot.nodes)? {
        context.info(change.to_string());
    }
    open_gate(context, &run)?;
    if let Some(driver) = files.first() {
        context.info(format!(
            "loaded {} modules of version {}",
            files.len(),
            driver.version.as_deref().unwrap_or("unknown")
        ));
    }
    Ok(())
}

fn described(file: &File) -> ledger::Module {
    ledger::Module {
        name: file.name.clone(),
        version: file.version.clone(),
        srcversion: file.srcversion.clone(),
        parameters: Default::default(),
    }
}

fn open_gate(context: &Context, run: &Run) -> Result<()> {
    gate::open(&context.root).context("open the gate")?;
    let gates = run.outstanding(Step::RmmodChain).into_iter();
    let gates = gates.filter(|act| matches!(act.object, Object::Gate { .. }));
    context.ledger.undone_each(gates.map(|act| act.id))
}

/// Unloads what this step loaded, so that the old driver can come back; the gate is rmmod-chain's
/// to open, whose undo comes next.
fn undo(context: &Context) -> Result<()> {
    context.needs(UNDO);
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let acts = run.outstanding(Step::ModprobeChain);
    if run.committed || acts.is_empty() {
        return Ok(());
    }
    if run.boot != context.ledger.boot() {
        return context.ledger.undone_each(acts.iter().map(|act| act.id));
    }
    let mut names: BTreeSet<String> = Disk::open(&context.root)?.names()?;
    names.extend(run.snapshot.modules.iter().map(|module| module.name.clone()));
    gate::shut(&context.root, &names).context("shut the gate")?;
    // Whatever hangs on the driver has to go, also what this step did not load itself.
    for module in chain(&context.root)? {
        let name = &module.module.name;
        match unload(name, PATIENCE)? {
            Unloaded::Gone => {}
            Unloaded::Busy => bail!("{name} is in use: the new driver stays"),
            Unloaded::Stuck(Stuck { pid, stack }) => {
                bail!(
                    "{name} is stuck on its way out of the kernel (process {pid}); reboot the machine: {stack}"
                )
            }
        }
    }
    context.ledger.undone_each(acts.iter().map(|act| act.id))
}
