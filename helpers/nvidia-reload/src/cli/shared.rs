// SPDX-License-Identifier: MIT
//! The options that commands share.

use clap::Args;

/// How the answer comes: the same for every command.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// Print one JSON object instead of text; progress goes to standard error
    #[arg(long)]
    pub json: bool,
    /// Print every detail
    #[arg(long, short, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Print the result in one line, and errors; no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Whether it is done: the same for every command that stops, loads or writes something.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Consent {
    /// Do not ask
    #[arg(long, short, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Show the plan and end; nothing is touched
    #[arg(long)]
    pub dry_run: bool,
}
