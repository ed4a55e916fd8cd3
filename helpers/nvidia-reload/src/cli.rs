// SPDX-License-Identifier: MIT
//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod after;
mod shared;

pub use shared::{Consent, Output};

use after::{
    AFTER, AFTER_CHECK, AFTER_EXPLAIN, AFTER_HEAL, AFTER_HISTORY, AFTER_LOGS, AFTER_PLAN, AFTER_REPORT,
    AFTER_REQUEST, AFTER_SLOTS, AFTER_STATUS, AFTER_VERIFY,
};

/// Reloads or resets the NVIDIA driver without a reboot, and restarts everything that had to stop for it.
#[derive(Debug, Parser)]
#[command(name = "nvidia-reload", version, after_help = AFTER, max_term_width = 80, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What to do; without one, `status`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How the answer of `status` comes.
    #[command(flatten)]
    pub output: Output,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the driver, the GPUs, what uses them, and the last run
    ///
    /// Works for every user, and says what only root can see. With --verbose, one line for each process.
    #[command(after_long_help = AFTER_STATUS)]
    Status(Output),
    /// Check that the loaded driver and every GPU works; change nothing
    ///
    /// Compares the modules, the library and the GPUs with what is installed and, where there was a run in
    /// this boot, with how the machine was before it. Exits with 0 if all is well, 1 if something is not,
    /// 4 if no reload can help now.
    #[command(after_long_help = AFTER_VERIFY)]
    Verify(Verify),
    /// Show what a command would stop, load and restart; change nothing
    ///
    /// `plan` is of a reload; `plan COMMAND` of reset, stop, start, rollback, recover, install or heal, and the
    /// same as `COMMAND --dry-run`. Exits with 0 if it may begin, 3 if it would be refused, 4 if no reload can
    /// help now.
    #[command(after_long_help = AFTER_PLAN)]
    Plan(Plan),
    /// Stop what uses the GPUs, reload the driver, restart everything
    ///
    /// Shows the plan and asks before it begins. The installed driver is loaded. If anything fails, everything
    /// is rolled back.
    Reload(Reload),
    /// Stop what uses the GPUs, reset them, restart everything
    ///
    /// For a GPU that needs a reset by what NVIDIA's driver says; a reload does not reset it. The driver stays
    /// loaded. Resets all GPUs, or with --gpu some, and then stops only what uses those, or may. Shows the plan
    /// and asks before it begins.
    Reset(Reset),
    /// Stop what uses the GPUs, until `nvidia-reload start`
    ///
    /// Shows the plan and asks before it begins. With --offline the driver is unloaded too.
    Stop(Stop),
    /// Restart everything that `nvidia-reload stop` stopped
    ///
    /// Shows the plan and asks. After `stop --offline`, the installed driver is loaded and verified as in a
    /// reload; if it fails, the driver that was loaded before is loaded again. `systemctl stop
    /// nvidia-offline.target` loads that one in any case.
    Start(Restart),
    /// Go back to the previous driver
    ///
    /// Installs it from its slot while no driver is loaded: VERSION, or the newest that is not loaded. Shows the
    /// plan and asks before it begins. A run that is just ending is waited for. An interrupted run is ended by
    /// `nvidia-reload recover`, not by this.
    Rollback(Rollback),
    /// End a run that was interrupted, and restore what it stopped
    ///
    /// Shows the plan and asks. After a power cut or a reboot this happens by itself. The driver that the boot
    /// has loaded stays, unless the run had changed its files or had seen it fail. To go back to the previous
    /// driver: `nvidia-reload rollback`.
    Recover(Restart),
    /// Install NVIDIA's driver from its .run file, with a reload
    ///
    /// The file is checked, and modules are built for the running kernel, while everything still runs. Then
    /// as `reload`, with the installer run while no driver is loaded. If anything fails, the previous driver is
    /// loaded again, with its files.
    Install(Install),
    /// Let programs find the loaded driver's libraries after an upgrade
    ///
    /// After an upgrade, programs that start find the libraries of the installed driver, which do not work with
    /// the one that is loaded ("Driver/library version mismatch"). This lets them find the loaded driver's own,
    /// from its slot, until the next reload, which ends it. Nothing is stopped, and no packaged file is touched.
    #[command(after_long_help = AFTER_HEAL)]
    Heal(Heal),
    /// List the saved drivers, and whether each is whole
    ///
    /// A slot is a saved, complete copy of a driver, for a rollback. Works for every user. Exits with 1 if one is
    /// corrupt.
    #[command(after_long_help = AFTER_SLOTS)]
    Slots(Output),
    /// Ask for a reload when the GPUs are idle, as packages do; or cancel it
    #[command(after_long_help = AFTER_REQUEST)]
    Request(Request),
    /// List the runs on record: when, what, versions, result, duration and downtime
    ///
    /// The last 50 runs, the newest first.
    #[command(after_long_help = AFTER_HISTORY)]
    History(Output),
    /// Show the journal of a run
    ///
    /// What the steps wrote while the run went on, the oldest line first.
    #[command(after_long_help = AFTER_LOGS)]
    Logs(Logs),
    /// Report on a run: its steps, each workload, versions, failures and what is not restored
    ///
    /// As text, as JSON, as a page for a browser, or as an archive for a bug report.
    #[command(after_long_help = AFTER_REPORT)]
    Report(Report),
    /// Explain an Xid, or the messages in a saved kernel log
    ///
    /// Also says what a reload would do about it. Works for every user, and without a GPU.
    #[command(
        after_long_help = AFTER_EXPLAIN,
        override_usage = "nvidia-reload explain [OPTIONS] CODE...\n       nvidia-reload explain [OPTIONS] --all\n       nvidia-reload explain [OPTIONS] --log FILE"
    )]
    Explain(Explain),
    /// Report in one line what the driver needs, for monitors and cron
    ///
    /// Works for every user; what only root sees is reported as not seen. Exits as a monitoring plugin
    /// does: 0 versions match, 1 reload needed, 2 GPU failed, reset or reboot needed, or no driver installed for
    /// the running kernel, 3 unknown. With --format another monitor's exit status and form.
    #[command(after_long_help = AFTER_CHECK)]
    Check(Check),
    /// Write the same for Prometheus, in its text format
    ///
    /// For the node exporter's textfile collector; best as root, who sees everything.
    Metrics {
        /// The file to replace, which ends in .prom; else standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Arguments of `start` and `recover`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Restart {
    /// Whether it is done.
    #[command(flatten)]
    pub consent: Consent,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// What a plan can be made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// `nvidia-reload reload`
    #[default]
    Reload,
    /// `nvidia-reload reset`, with --gpu of some GPUs
    Reset,
    /// `nvidia-reload stop`, with --offline
    Stop,
    /// `nvidia-reload start`
    Start,
    /// `nvidia-reload rollback`, with VERSION
    Rollback,
    /// `nvidia-reload recover`
    Recover,
    /// `nvidia-reload install`, with FILE
    Install,
    /// `nvidia-reload heal`
    Heal,
}

/// Arguments of `plan`.
#[derive(Debug, Clone, Default, Args)]
pub struct Plan {
    /// The command to plan
    #[arg(value_enum, default_value_t, value_name = "COMMAND", hide_possible_values = true)]
    pub what: What,
    /// Its argument: the VERSION of `rollback`, the FILE of `install`
    #[arg(value_name = "VERSION|FILE")]
    pub argument: Option<PathBuf>,
    /// Which GPUs a reset is of.
    #[command(flatten)]
    pub gpus: Gpus,
    /// Of `stop`: unload the driver too
    #[arg(long)]
    pub offline: bool,
    /// Refuse it if work would be lost
    #[arg(long)]
    pub if_idle: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of all that reload or reset.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Reload {
    /// Whether it is done.
    #[command(flatten)]
    pub consent: Consent,
    /// Only if no work is lost; else it is refused and nothing is touched
    ///
    /// Services that upgrade.restartable in the configuration names may be stopped all the same. This is
    /// checked again when the run begins.
    #[arg(long)]
    pub if_idle: bool,
    /// Start the run and do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `reset`.
#[derive(Debug, Clone, Default, Args)]
pub struct Reset {
    /// Which GPUs.
    #[command(flatten)]
    pub gpus: Gpus,
    /// How.
    #[command(flatten)]
    pub reload: Reload,
}

/// Which GPUs are reset.
#[derive(Debug, Clone, Default, Args)]
pub struct Gpus {
    /// A GPU, by PCI address, UUID or index, and what is reset with it
    #[arg(long = "gpu", value_name = "ID", value_delimiter = ',')]
    pub ids: Vec<String>,
}

/// Arguments of `rollback`.
#[derive(Debug, Clone, Default, Args)]
pub struct Rollback {
    /// The driver to go back to, as `nvidia-reload slots` lists it
    #[arg(value_name = "VERSION")]
    pub version: Option<String>,
    /// How it goes.
    #[command(flatten)]
    pub reload: Reload,
}

/// Arguments of `install`.
#[derive(Debug, Clone, Default, Args)]
pub struct Install {
    /// NVIDIA's installer, such as NVIDIA-Linux-x86_64-550.163.01.run
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How it goes.
    #[command(flatten)]
    pub reload: Reload,
    /// More for the installer, such as `-- --kernel-module-type=open`
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// Arguments of `verify`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Verify {
    /// Also run the test of verify.smoke in the configuration
    #[arg(long)]
    pub smoke: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `check`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Check {
    /// The monitor that reads the line and the exit status
    #[arg(long, value_name = "MONITOR", value_enum, default_value_t, conflicts_with = "json")]
    pub format: crate::check::Format,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `stop`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Stop {
    /// Unload the driver too
    #[arg(long)]
    pub offline: bool,
    /// Whether it is done.
    #[command(flatten)]
    pub consent: Consent,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `heal`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Heal {
    /// Let programs find the libraries on disk again
    #[arg(long)]
    pub end: bool,
    /// Whether it is done.
    #[command(flatten)]
    pub consent: Consent,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `request`.
#[derive(Debug, Clone, Default, Args)]
pub struct Request {
    /// Who asks, and why
    #[arg(long, value_name = "TEXT", default_value = "by hand", conflicts_with = "cancel")]
    pub reason: String,
    /// Cancel the request; a reload that has begun goes on
    #[arg(long)]
    pub cancel: bool,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `logs`.
#[derive(Debug, Clone, Default, Args)]
pub struct Logs {
    /// The run, as `nvidia-reload history` lists it; without, the last one
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `report`.
#[derive(Debug, Clone, Default, Args)]
pub struct Report {
    /// The run, as `nvidia-reload history` lists it; without, the last one
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Write a page for a browser
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write a tar archive for a bug report
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// How the answer comes.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `explain`.
#[derive(Debug, Clone, Default, Args)]
pub struct Explain {
    /// The Xid, such as 79 in `Xid (PCI:0000:91:00): 79`
    #[arg(
        value_name = "CODE",
        value_parser = code,
        required_unless_present_any = ["all", "log"],
        conflicts_with_all = ["all", "log"]
    )]
    pub codes: Vec<u32>,
    /// Every known Xid, in a table
    #[arg(long, conflicts_with = "log")]
    pub all: bool,
    /// A saved kernel log; - for standard input
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How the answer comes; of a log, --json prints one object a line.
    #[command(flatten)]
    pub output: Output,
}

/// An Xid as people type it.
fn code(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "an Xid is a number, as the 79 in `Xid (PCI:0000:91:00): 79`".to_owned())
}
