// SPDX-License-Identifier: MIT
//! Stops the systemd units that own holders of the GPU, and starts them again.
//!
//! The units are stopped by their manager, the system's or the user's, so `Restart=always` and the like do not start them
//! again. All units that stop with them are in the ledger before.

#![forbid(unsafe_code)]

mod closure;
mod failed_services;
#[cfg(test)]
mod fuzz;
mod inhibitors;
mod list;
mod ours;
mod sessions;
mod single;
mod start;
mod stop;
mod transient;
mod users;
mod wanted;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use ledger::Step;
use step::{Context, Priority, log};

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the units that would be stopped now, in order, and why; changes nothing.
    List {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        /// Only for the GPU that this device node is of, such as nvidia3.
        #[arg(long = "node", value_name = "NAME")]
        nodes: Vec<String>,
    },
    /// Tell by the exit status whether the machine is going down: 0 for yes, 1 for no.
    #[command(hide = true)]
    IsStopping,
    /// Tell as JSON which of our own units are up, and which are about to be started.
    #[command(hide = true)]
    OurUnits,
    /// Tell as JSON who blocks a shutdown.
    #[command(hide = true)]
    ListInhibitors,
    /// Tell as JSON when a unit went down last, and when it came up last.
    #[command(hide = true)]
    UnitAway {
        /// The unit.
        unit: String,
    },
    /// Start one unit and wait until that has ended; 4 says that there is no such unit.
    #[command(hide = true)]
    StartUnit {
        /// The unit.
        unit: String,
        /// Do not wait.
        #[arg(long)]
        no_wait: bool,
        /// Do not wait, and stop one that runs before.
        #[arg(long)]
        renew: bool,
    },
    /// Start one unit, print its status lines, and wait until its work has ended; 4 says that there is no such unit.
    #[command(hide = true)]
    RunUnit {
        /// The unit.
        unit: String,
        /// How long it may take.
        #[arg(long)]
        seconds: u64,
    },
    /// Stop one unit and start it again, where no other that is up goes down with it; 4 says that there is no such
    /// unit.
    #[command(hide = true)]
    RestartUnit {
        /// The unit.
        unit: String,
    },
    /// Stop one unit.
    #[command(hide = true)]
    StopUnit {
        /// The unit.
        unit: String,
        /// Wait until that has ended.
        #[arg(long)]
        wait: bool,
    },
    /// Print as JSON the services that failed because of the old driver and that a run would start.
    #[command(hide = true)]
    ListFailed,
    /// Note in the open run the services that failed because of the old driver or the run.
    #[command(hide = true)]
    NoteFailed,
    /// Start the units of users that were stopped: last, when the system's own units and containers run.
    #[command(hide = true)]
    UndoUsers,
}

fn main() -> ExitCode {
    step::main_with(Step::StopUnits, stop::run, start::undo, |context, verb| match verb {
        Verb::List { json, nodes } => list::list(context, json, &nodes).map(|()| ExitCode::SUCCESS),
        Verb::IsStopping => Ok(answer(context, bus::is_stopping().map_err(Into::into))),
        Verb::OurUnits => ours::tell().map(|()| ExitCode::SUCCESS),
        Verb::ListInhibitors => inhibitors::list().map(|()| ExitCode::SUCCESS),
        Verb::UnitAway { unit } => single::away(&unit),
        Verb::StartUnit { unit, renew: true, .. } => single::queue(&unit, true),
        Verb::StartUnit { unit, no_wait: true, .. } => single::queue(&unit, false),
        Verb::StartUnit { unit, .. } => single::start(&unit),
        Verb::RunUnit { unit, seconds } => single::run(&unit, Duration::from_secs(seconds)),
        Verb::RestartUnit { unit } => single::restart(&unit),
        Verb::StopUnit { unit, wait } => single::stop(&unit, wait),
        Verb::ListFailed => failed_services::list(context).map(|()| ExitCode::SUCCESS),
        Verb::NoteFailed => failed_services::note(context).map(|()| ExitCode::SUCCESS),
        Verb::UndoUsers => start::undo_users(context).map(|()| ExitCode::SUCCESS),
    })
}

fn answer(context: &Context, said: Result<bool>) -> ExitCode {
    match said {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // Neither yes nor no.
        Err(error) => {
            log(context.step, Priority::Error, &format!("{error:#}"), &[]);
            ExitCode::from(255)
        }
    }
}

/// A manager's unit: the user whose manager it is, none for the system's, and the name.
type UnitKey = (Option<u32>, String);
