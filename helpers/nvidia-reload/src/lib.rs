//! The command that people type: what is, what would be done, and doing it.
//!
//! It holds no state of its own. systemd runs the steps, the ledger says what they took; this shows
//! both, asks, and starts and stops the targets. So a command that is killed, or a connection that
//! is lost, changes nothing about a run.
//!
//! Three layers, each knowing only the one before: [`engine`] follows a run and tells of it in
//! typed events, [`view`] makes text of typed data and nothing else, [`terminal`] puts it where the
//! reader is.

#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod command;
pub mod engine;
pub mod fault;
pub mod generate;
pub mod gpus;
pub mod installer;
pub mod interrupt;
pub mod kept;
pub mod metrics;
pub mod past;
pub mod plan;
pub mod report;
pub mod status;
pub mod target;
pub mod terminal;
pub mod verify;
pub mod view;

use std::process::ExitCode;

use clap::Parser;

/// The whole program.
pub fn main() -> ExitCode {
    step::fix_path();
    let arguments = cli::Arguments::try_parse().unwrap_or_else(|error| {
        // What the script before this program was given.
        if std::env::args().any(|argument| argument == "--rollback") {
            eprintln!("{}\n", cli::ROLLBACK_HINT);
        }
        error.exit()
    });
    command::dispatch(&arguments.command)
}
