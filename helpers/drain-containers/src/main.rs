// SPDX-License-Identifier: MIT
//! Stops the containers that have a GPU, in parallel, and restarts them.
//!
//! Only the API of the engine is used; no daemon is restarted for it. What is stopped is in the ledger before it is
//! stopped, so that an undo in this boot or the next starts exactly that.

#![forbid(unsafe_code)]

mod again;
mod cdi;
mod ended;
mod podman;
mod pods;
mod policy;
mod restore;
mod stale_hook;
mod take;
mod taken;

#[cfg(test)]
mod fake_engine;
#[cfg(test)]
mod flow_tests;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use engines::{Container, Engine, Presence, Running, Survey, Why};
use holders::{Holder, Owner, Scope, below};
use ledger::Step;
use step::{Context, Exit, text};

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the containers that have a GPU, and why; changes nothing.
    List {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        /// Only for the GPU that this device node is of, such as nvidia3.
        #[arg(long = "node", value_name = "NAME")]
        nodes: Vec<String>,
    },
    /// Show the CDI specifications of NVIDIA's devices, as JSON.
    #[command(hide = true)]
    CdiSpecs,
    /// Write those again that do not fit the driver that is loaded.
    #[command(hide = true)]
    CdiRefresh,
}

fn main() -> ExitCode {
    step::main_with(Step::DrainContainers, take::run, restore::undo, |context, verb| match verb {
        Verb::List { json, nodes } => list(context, json, &nodes.into_iter().collect()),
        Verb::CdiSpecs => {
            println!("{}", serde_json::to_string(&cdi::paths(context)?)?);
            Ok(Exit::Done.into())
        }
        Verb::CdiRefresh => cdi::rewrite_all(context, true).map(|()| Exit::Done.into()),
    })
}

fn list(context: &Context, json: bool, scope: &Scope) -> Result<ExitCode> {
    let podman = podman::offer(context, &Running::look(&context.root)?.podmans());
    let survey = survey(context, scope, 0)?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", text::json(&survey).context("print the containers")?)?;
    } else {
        for (engine, reason) in unreachable(&survey) {
            writeln!(out, "{}", text::clean(&format!("{engine} cannot be asked: {reason}")))?;
        }
        for unclear in &survey.unclear {
            writeln!(out, "{}", text::clean(unclear))?;
        }
        for container in &survey.containers {
            let line = format!("{container}: {}; looked after by {}", container.reasons(), container.owner);
            writeln!(out, "{}", text::clean(&line))?;
        }
    }
    drop(podman);
    Ok(Exit::Done.into())
}

/// The engines' containers that have a GPU. Of some GPUs only those that use one now: a container that
/// was merely given one finds it unchanged after its reset.
fn survey(context: &Context, scope: &Scope, parallel: usize) -> Result<Survey> {
    let scan = holders::scan(&context.root).context("look for processes that hold a GPU")?.within(scope);
    let claims = containers_of(&scan.holders);
    let mut survey = engines::wait_for(engines::gpu_containers(&context.root, &claims, parallel))
        .and_then(|survey| survey)
        .context("look for containers that have a GPU")?;
    if !scope.is_all() {
        survey.containers.retain(|container| uses(context, container, &scan.holders));
    }
    Ok(survey)
}

/// Whether one of `holders` is of the container. A user's own Podman may make it no control group: then
/// it is one of the processes below the container's first.
fn uses(context: &Context, container: &Container, holders: &[Holder]) -> bool {
    if container.why.contains(&Why::Holds) || container.user.is_none() {
        return container.why.contains(&Why::Holds);
    }
    let below = below(&context.root, &[container.pid]);
    holders.iter().any(|holder| below.contains(&holder.pid))
}

/// The engines that are there and do not answer.
fn unreachable(survey: &Survey) -> impl Iterator<Item = (&Engine, &str)> {
    survey.engines.iter().filter_map(|engine| match &engine.presence {
        Presence::Unreachable { reason, .. } => Some((engine, reason.as_str())),
        Presence::Ready | Presence::Absent { .. } => None,
    })
}

/// The containers that these are of, by their control groups.
fn containers_of(holders: &[Holder]) -> Vec<holders::Container> {
    let mut claims: Vec<holders::Container> = holders
        .iter()
        .filter_map(|holder| match &holder.owner {
            Owner::Container(container) => Some(container.clone()),
            _ => None,
        })
        .collect();
    claims.sort();
    claims.dedup();
    claims
}
