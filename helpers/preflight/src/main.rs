//! Refuses what cannot work or would be unsafe while everything still runs, or opens the run.

mod asked;
mod assess;
mod choose;
mod driver;
mod findings;
#[cfg(test)]
mod golden;
mod gpus;
mod health;
mod of_users;
mod package;
mod predict;
mod reset;
mod users;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use asked::Asked;
use assess::Assessed;
use clap::Subcommand;
use ledger::{Gpu, Snapshot, Step};
use modules::{chain, differences, gpus, nodes, parameters};
use slots::lock_for_run;
use step::{Context, Exit, Leftovers, Order, Reason, Stop, Verdict, finish, order_unit, system_is_stopping};

/// What else this helper does.
#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Say what a run would do, as JSON; touches nothing.
    Plan {
        /// A reset of the GPUs rather than a reload.
        #[arg(long)]
        reset: bool,
        /// Of this GPU only: its PCI address, UUID or index.
        #[arg(long = "gpu", value_name = "ID", requires = "reset")]
        gpus: Vec<String>,
        /// A reload that puts this version on disk first.
        #[arg(long, value_name = "VERSION", conflicts_with = "reset")]
        exchange: Option<String>,
        /// Refuse it if somebody would lose work by it.
        #[arg(long)]
        if_idle: bool,
    },
}

fn main() -> ExitCode {
    step::main_with(Step::Preflight, run, undo, |context, verb: Verb| {
        let Verb::Plan { reset, gpus, exchange, if_idle } = verb;
        plan(context, &Asked { reset: reset.then_some(gpus), exchange, if_idle })
    })
}

fn run(context: &Context) -> Result<()> {
    let config = context.config()?;
    package::wait(context)?;
    context.status("looking at the driver and at who holds it");
    let asked = Asked::take(&context.root)?;
    let Assessed { plan, container_units, containers, dockerd, heard, seen, chosen } =
        assess::assess(context, &config, &asked)?;
    for warning in &plan.warnings {
        context.warn(warning.to_string());
    }
    // Also where the run is refused: what outlives the driver may be forgotten by the kernel's log and the
    // journal before anybody asks again. Verify asks for what is said from here on.
    heard.remember(&context.root)?;
    match plan.verdict {
        Verdict::Ready => {}
        Verdict::Refused => return Err(Stop::Refused(plan.reasons).into()),
        Verdict::RebootRequired => return Err(Stop::RebootRequired(plan.reasons).into()),
    }
    // A save of the driver that is under way ends here, and while the run is open none begins.
    let lock = lock_for_run(context).map_err(|error| {
        let remedy = "wait until that has ended; `nvidia-reload status` shows what is going on";
        Stop::Refused(vec![Reason::new(format!("{error:#}"), remedy)])
    })?;
    let id = context.ledger.open(Snapshot {
        reset: asked.reset.is_some(),
        chosen,
        parallel: config.containers.parallel,
        containers,
        dockerd,
        ..snapshot(context, container_units, seen)?
    })?;
    drop(lock);
    context.info(format!(
        "run {id}: driver {} is loaded, {} is on disk",
        plan.driver.loaded.as_deref().unwrap_or("unknown"),
        plan.driver.on_disk.as_deref().unwrap_or("unknown"),
    ));
    for action in &plan.actions {
        context.info(format!("{}: {} ({})", action.object, action.what, action.why));
    }
    Ok(())
}

/// The machine as it is, with all that is needed to put it back.
fn snapshot(
    context: &Context,
    container_units: Vec<(Option<u32>, String)>,
    seen: Vec<Gpu>,
) -> Result<Snapshot> {
    let mut modules: Vec<_> = chain(&context.root)?.into_iter().map(|loaded| loaded.module).collect();
    // What can be unloaded last was loaded first.
    modules.reverse();
    for module in &mut modules {
        module.parameters = parameters(&context.root, &module.name)?;
    }
    let (nodes, gpus) = (nodes::snapshot(&context.root)?, gpus(&context.root)?);
    let mut snapshot = Snapshot { modules, nodes, gpus, seen, ..Snapshot::default() };
    for (user, unit) in container_units {
        match user {
            None => snapshot.container_units.push(unit),
            Some(uid) => snapshot.user_container_units.push((uid, unit)),
        }
    }
    Ok(snapshot)
}

/// Comes last in the unwinding: closes the run, unless something is left for the rollback or, when
/// the machine is going down, for the next boot.
fn undo(context: &Context) -> Result<()> {
    // A request that stays is no reason to leave the run open.
    let forgotten = asked::forget(&context.root);
    finish(context, Leftovers::Keep, |run| differences(&context.root, run, context.ledger.boot()))?;
    if context.ledger.read()?.is_some() && !system_is_stopping()? {
        // OnFailure= of the target does not come after a cancel, nor after the stop of a target that holds.
        context.warn("not everything is restored: it is tried once more");
        order_unit(Order::Queue, &Step::Rollback.unit()).context("start what tries once more")?;
    }
    forgotten
}

fn plan(context: &Context, asked: &Asked) -> Result<ExitCode> {
    let Assessed { plan, .. } = assess::assess(context, &context.config()?, asked)?;
    println!("{}", serde_json::to_string(&plan)?);
    let exit = match plan.verdict {
        Verdict::Ready => Exit::Done,
        Verdict::Refused => Exit::Refused,
        Verdict::RebootRequired => Exit::RebootRequired,
    };
    Ok(exit.into())
}
