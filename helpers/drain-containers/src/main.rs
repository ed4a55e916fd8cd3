//! Stops the containers that have a GPU, side by side, and gives them back.
//!
//! The container is asked for by its engine's API and nothing else is touched: no daemon is
//! restarted. What was stopped is in the ledger before it is stopped, so that whoever comes later,
//! in this boot or the next, starts exactly that.

mod again;
mod cdi;
mod give_back;
mod podman;
mod policy;
mod take;

#[cfg(test)]
mod fake_engine;
#[cfg(test)]
mod flow_tests;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use engines::{Engine, Presence, Running, Survey};
use holders::Owner;
use ledger::Step;
use step::{Context, Exit};

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the containers that have a GPU, and why; changes nothing.
    List {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        /// The id of a container that is known to hold a GPU. Without it, the processes are searched.
        #[arg(long = "holding", value_name = "ID")]
        holding: Vec<String>,
    },
}

fn main() -> ExitCode {
    step::main_with(Step::DrainContainers, take::run, give_back::undo, |context, verb| match verb {
        Verb::List { json, holding } => list(context, json, holding),
    })
}

fn list(context: &Context, json: bool, holding: Vec<String>) -> Result<ExitCode> {
    let podman = podman::offer(context, Running::look(&context.root)?.podmans());
    let holding = if holding.is_empty() { containers_that_hold(context)? } else { holding };
    let survey = survey(context, &holding, 0)?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &survey).context("print the containers")?;
        writeln!(out)?;
    } else {
        for (engine, reason) in unreachable(&survey) {
            writeln!(out, "{engine} cannot be asked: {reason}")?;
        }
        for container in &survey.containers {
            writeln!(out, "{container}: {}; looked after by {}", container.reasons(), container.owner)?;
        }
    }
    drop(podman);
    Ok(Exit::Done.into())
}

/// The engines' containers that have a GPU; `holding` are ids of such that hold one now.
fn survey(context: &Context, holding: &[String], parallel: usize) -> Result<Survey> {
    engines::wait_for(engines::gpu_containers(&context.root, holding, parallel))
        .and_then(|survey| survey)
        .context("look for containers that have a GPU")
}

/// The engines that are there and do not answer.
fn unreachable(survey: &Survey) -> impl Iterator<Item = (&Engine, &str)> {
    survey.engines.iter().filter_map(|engine| match &engine.presence {
        Presence::Unreachable { reason, .. } => Some((engine, reason.as_str())),
        Presence::Ready | Presence::Absent { .. } => None,
    })
}

/// The ids of the containers whose processes hold a GPU at this moment.
fn containers_that_hold(context: &Context) -> Result<Vec<String>> {
    let scan = holders::scan(&context.root).context("look for processes that hold a GPU")?;
    let mut ids: Vec<String> = scan
        .holders
        .into_iter()
        .filter_map(|holder| match holder.owner {
            Owner::Container(container) => Some(container.id),
            _ => None,
        })
        .collect();
    ids.sort();
    ids.dedup();
    Ok(ids)
}
