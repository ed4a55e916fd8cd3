// SPDX-License-Identifier: MIT
//! Refuses a run that cannot work or would be unsafe, while everything still runs; or opens the run.

#![forbid(unsafe_code)]

mod assess;
mod bystanders;
mod choose;
mod driver;
mod failed_services;
mod findings;
#[cfg(test)]
mod golden;
mod gpus;
mod health;
mod inhibited;
mod memory;
mod of_slurm;
mod of_users;
mod package;
mod predict;
mod reset;
mod sessions;
mod sibling;
mod users;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use assess::Assessed;
use clap::Subcommand;
use ledger::{Gpu, Install, Snapshot, Step};
use modules::{chain, differences, gpus, nodes, parameters};
use slots::lock_for_run;
use step::{
    Context, Leftovers, Message, Order, Plan, Priority, Reason, RunRequest, Stop, Verdict, finish, log_as,
    order_unit, system_is_stopping, take_start,
};

/// There while a run knows of no console on the driver's framebuffer: a condition of unbind-vt's unit, which takes as
/// long to do nothing as to do something. It runs all the same where the driver has a framebuffer by then.
const NO_CONSOLE: &str = "/run/nvidia-reload/no-console";

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
    /// Ask Slurm for the jobs on this node, and leave the answer for the plan.
    #[command(hide = true)]
    AskSlurm,
    /// Ask that the run which is about to begin be a reset, of all GPUs unless some were named.
    AskForReset,
    /// Ask that the run which is about to begin hold the machine; refused while another is under way.
    AskToHold,
}

fn main() -> ExitCode {
    step::main_with(Step::Preflight, run, undo, |context, verb: Verb| match verb {
        Verb::Plan { reset, gpus, exchange, if_idle } => {
            let install = exchange.map(|version| Install::Slot { version });
            let reset = reset.then_some(gpus);
            plan(context, &RunRequest { reset, install, if_idle, ..RunRequest::default() })
        }
        Verb::AskSlurm => slurm::answer(&context.root).map(|()| ExitCode::SUCCESS),
        Verb::AskToHold => ask_to_hold(context).map(|()| ExitCode::SUCCESS),
        Verb::AskForReset => RunRequest::ask_for_reset(&context.root).map(|()| ExitCode::SUCCESS),
    })
}

/// The steps are the same units in every target: one that has run for a reload would not run again, and the
/// machine would count as held while that reload restores the workloads.
fn ask_to_hold(context: &Context) -> Result<()> {
    match context.ledger.read()? {
        Some(run) if run.snapshot.hold == Some(false) => {
            let what = format!("run {} is under way", run.id);
            Err(Stop::not_in_this_run(what, "start again when it has ended").into())
        }
        // An offline machine was a drained one; what else is open preflight refuses.
        Some(_) => Ok(()),
        None => RunRequest::ask_to_hold(&context.root),
    }
}

/// The command that asked for the run finds its plan, a refusal too.
fn run(context: &Context) -> Result<()> {
    let mut plan = None;
    // It is taken away as it is read.
    let asked = RunRequest::read(&context.root).unwrap_or_default().unwrap_or_default();
    let begun = begin(context, &mut plan);
    if let Some(stop) = begun.as_ref().err().and_then(|error| error.downcast_ref::<Stop>()) {
        let mut refused = plan.unwrap_or_else(|| Plan::refused(Vec::new())).ended_by(stop);
        if let Err(error) = refused.leave(&context.root) {
            context.warn(format!("the command cannot show why: {error:#}"));
        }
        // `systemctl status` of the target that was asked for shows what is said of that.
        for target in targets(&asked) {
            log_as(context.step.name(), target, Priority::Error, &stop.to_string(), &[]);
        }
    }
    begun
}

/// The targets that a run of this kind is for.
fn targets(asked: &RunRequest) -> &'static [&'static str] {
    match (asked.hold, &asked.reset) {
        (true, _) => &["nvidia-drained.target", "nvidia-offline.target"],
        (false, Some(_)) => &["nvidia-reset.target"],
        (false, None) => &["nvidia-reload.target"],
    }
}

/// Opens the run. `made` gets its plan as soon as there is one.
fn begin(context: &Context, made: &mut Option<Plan>) -> Result<()> {
    // Before anything can go wrong: what becomes of this run, the next one is not it.
    let asked = RunRequest::take(&context.root)?;
    let no_console = context.root.path(NO_CONSOLE);
    files::remove(&no_console).with_context(|| format!("remove {}", no_console.display()))?;
    let started_by = take_start(&context.root).unwrap_or_else(|error| {
        context.warn(format!("what started the run is not known: {error:#}"));
        None
    });
    let config = context.config()?;
    package::wait(context)?;
    context.status("checking the driver and what holds it");
    let Assessed { plan, container_units, containers, dockerd, log, seen, chosen, unwanted_services } =
        assess::assess(context, &config, &asked)?;
    let plan = made.insert(plan);
    for warning in &plan.warnings {
        context.warn(warning.to_string());
    }
    // Also where the run is refused: what outlives the driver may be forgotten by the kernel's log and the
    // journal before anybody asks again. Verify asks for what is said from here on.
    log.save(&context.root)?;
    match plan.verdict {
        Verdict::Ready => {}
        Verdict::Refused => return Err(Stop::Refused(plan.reasons.clone()).into()),
        Verdict::RebootRequired => return Err(Stop::RebootRequired(plan.reasons.clone()).into()),
    }
    // A save of the driver that is under way ends here, and while the run is open none begins.
    let lock = lock_for_run(context).map_err(|error| {
        let remedy = "wait until that has ended; `nvidia-reload status` shows what is going on";
        Stop::Refused(vec![Reason::new(format!("{error:#}"), remedy)])
    })?;
    // Last of all that may refuse it: others wait for the lease.
    let lease = fleetlock::take(context, &config.fleet)?;
    plan.leave(&context.root)?;
    // A machine that is held has the time to get a console: there the step looks for itself.
    if !asked.hold && plan.actions.iter().all(|action| action.step != Step::UnbindVt) {
        files::replace(&no_console, 0o600, b"").with_context(|| format!("write {}", no_console.display()))?;
    }
    let id = context.ledger.open(Snapshot {
        reset: asked.reset.is_some(),
        chosen,
        parallel: config.containers.parallel,
        containers,
        dockerd,
        unwanted_services,
        hold: Some(asked.hold),
        install: asked.install,
        started_by,
        ..snapshot(context, container_units, seen)?
    })?;
    drop(lock);
    if let Some(lease) = lease {
        lease.belongs_to(&id)?;
    }
    let what = format!(
        "run {id}: driver {} is loaded, {} is on disk",
        plan.driver.loaded.as_deref().unwrap_or("unknown"),
        plan.driver.on_disk.as_deref().unwrap_or("unknown"),
    );
    context.event(Message::RunBegan, what, &[("NVIDIA_RELOAD_RUN", &id)]);
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

/// Comes last when the steps are undone: closes the run, unless something is left for the rollback or, when
/// the machine is going down, for the next boot.
fn undo(context: &Context) -> Result<()> {
    // Of a run that never came to take it. That it stays is no reason to leave the run open.
    let forgotten = RunRequest::withdraw(&context.root);
    let finished =
        finish(context, Leftovers::Keep, |run| differences(&context.root, run, context.ledger.boot()));
    fleetlock::settle(context);
    finished?;
    if context.ledger.read()?.is_some() && !system_is_stopping()? {
        // OnFailure= of the target does not come after a cancel, nor after the stop of a target that holds.
        context.warn("not everything is restored: it is tried once more");
        order_unit(Order::Queue, &Step::Rollback.unit()).context("start what tries once more")?;
    }
    forgotten
}

fn plan(context: &Context, asked: &RunRequest) -> Result<ExitCode> {
    let Assessed { plan, .. } = assess::assess(context, &context.config()?, asked)?;
    println!("{}", serde_json::to_string(&plan)?);
    Ok(plan.verdict.exit().into())
}
