// SPDX-License-Identifier: MIT
//! The command that people type: what is, what would be done, and doing it.
//!
//! It holds no state of its own. systemd runs the steps, the ledger says what they took; this shows
//! both, asks, and starts and stops the targets. So a command that is killed, or a connection that
//! is lost, changes nothing about a run.
//!
//! Three layers, each knowing only the one before: [`follow`] follows a run and reports it in
//! typed events, [`view`] makes text of typed data and nothing else, [`terminal`] puts it where the
//! reader is.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod check;
pub mod cli;
pub mod command;
pub mod expected;
pub mod fault;
pub mod follow;
pub mod former;
pub mod generate;
pub mod gpus;
pub mod helper;
pub mod installer;
pub mod interrupt;
pub mod kind;
pub mod metrics;
pub mod names;
pub mod past;
pub mod plan;
pub mod put_back;
pub mod redact;
pub mod report;
pub mod runs;
pub mod slots;
pub mod status;
pub mod target;
pub mod terminal;
pub mod users;
pub mod verify;
pub mod view;

use std::process::ExitCode;

use clap::Parser;

/// The whole program.
pub fn main() -> ExitCode {
    step::fix_path();
    // Not a command that people are offered: the build makes pages and completions with it.
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if let [verb, directory] = words.as_slice()
        && verb == "generate"
    {
        return match generate::generate(directory.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => command::failed(&fault, cli::Output::default()).into(),
        };
    }
    let arguments = cli::Arguments::try_parse().unwrap_or_else(|error| {
        let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        if error.use_stderr()
            && let Some(hint) = former::hint(&words)
        {
            let hint =
                fault::Fault::new(step::Exit::Usage, hint, "`nvidia-reload --help` shows all commands");
            std::process::exit(command::failed(&hint, cli::Output::default()).into());
        }
        error.exit()
    });
    command::dispatch(&arguments)
}
