// SPDX-License-Identifier: MIT
//! The rig: builds the virtual machine in which nvidia-reload is tested, and
//! runs things in it. `cargo rig help` says what.

mod accel;
mod apt;
mod arm64;
mod bench;
mod cache;
mod checks;
mod cleanup;
mod command;
mod crowd;
mod demo;
mod disk;
mod distributions;
#[cfg(test)]
mod docs;
mod fleet;
mod host;
mod machine;
mod progress;
mod qmp;
mod results;
mod room;
mod scenario;
#[cfg(test)]
mod sources;
mod ssh;
mod stage;
mod stages;
mod suite;
mod worlds;

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use cache::Cache;
use fleet::{Fleet, Lan};
use machine::{Machine, Spec};
use scenario::{End, Limit, Output, Scenario, known_driver, possible_gpus, possible_machines};
use stages::{Content, Distro};

/// The rig's own failure: out of the way of what scenarios exit with.
const OWN_FAILURE: u8 = 125;

/// Tests nvidia-reload in a virtual machine that has NVIDIA's driver and no GPU
#[derive(Parser)]
#[command(name = "cargo rig", bin_name = "cargo rig", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a script in the machine, as root
    ///
    /// Standard output and standard error are the script's own, and so is the
    /// exit status. 125 says that the rig itself failed.
    Run {
        #[command(flatten)]
        machine: MachineArgs,
        /// A script, or a folder with an executable `run`
        path: PathBuf,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a script in the first of several machines that share a network
    ///
    /// They are called node1, node2, …; root of node1 reaches the others by ssh. Otherwise as `run`.
    Fleet {
        #[command(flatten)]
        machine: MachineArgs,
        /// How many machines, 2 to 9
        #[arg(value_parser = possible_machines)]
        size: u32,
        /// A script, or a folder with an executable `run`
        path: PathBuf,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Open a root shell in the machine
    Shell {
        #[command(flatten)]
        machine: MachineArgs,
    },
    /// Watch a reload: another driver on disk, workloads running, one command
    Demo,
    /// Measure what a reload costs, beside doing it by hand, kexec and a reboot
    ///
    /// Says what got worse by more than 15 % than the committed figures. The exit status is 1 when a
    /// figure is over its limit.
    Bench {
        #[command(flatten)]
        to: bench::To,
    },
    /// Run all checks and scenarios but those that take long, or those named
    Test(suite::Options),
    /// Build the packages, for dpkg and for rpm
    Package {
        /// Also those for arm64
        #[arg(long)]
        arm64: bool,
        /// Where they are left
        #[arg(default_value = "target/packages")]
        folder: PathBuf,
    },
    /// Build all that the other commands need, and run nothing
    Build {
        #[command(flatten)]
        machine: MachineArgs,
    },
}

#[derive(Args)]
struct MachineArgs {
    /// The distribution: debian12, debian12-backports, debian13, debian13-kernel or forky
    #[arg(long, value_name = "NAME")]
    distro: Option<Distro>,
    /// GPUs of the machine, 1 to 8
    #[arg(long, value_parser = possible_gpus)]
    gpus: Option<u32>,
    /// The driver on disk and loaded
    #[arg(long, value_parser = known_driver)]
    driver: Option<String>,
    /// A machine without nvidia-reload
    #[arg(long)]
    no_package: bool,
}

impl MachineArgs {
    fn content<'a>(&self, spec: &'a Spec) -> Content<'a> {
        Content { with_package: !self.no_package, with_stand_ins: true, spec }
    }

    fn spec(&self, header: Option<&scenario::Header>) -> Result<Spec> {
        let asked = header.map(|header| header.spec(header.distros()[0])).transpose()?.unwrap_or_default();
        Ok(Spec {
            distro: self.distro.unwrap_or(asked.distro),
            gpus: self.gpus.unwrap_or(asked.gpus),
            driver: self.driver.clone().unwrap_or(asked.driver),
            kernel: asked.kernel,
            lan: asked.lan,
        })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = cleanup::on_signals().and_then(|()| act(cli.command));
    cleanup::remove_folder();
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("rig: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {}", cause.to_string().trim_end().replace('\n', "\n           "));
            }
            ExitCode::from(OWN_FAILURE)
        }
    }
}

fn act(verb: Verb) -> Result<u8> {
    match verb {
        Verb::Run { machine, path, arguments } => {
            let scenario = Scenario::open(&path)?;
            let spec = machine.spec(Some(scenario.header()))?;
            run(&machine.content(&spec), &scenario, &arguments)
        }
        Verb::Fleet { machine, size, path, arguments } => {
            let scenario = Scenario::open(&path)?;
            let spec = Spec { lan: Some(Lan::of(size)?), ..machine.spec(Some(scenario.header()))? };
            run(&machine.content(&spec), &scenario, &arguments)
        }
        Verb::Shell { machine } => {
            let machine = start(&machine.content(&machine.spec(None)?))?;
            let ssh = machine.ssh()?;
            // Sets the clock.
            ssh.send(&["-T".into(), "/dev/null".into()])?;
            let mut shell = ssh.terminal("exec bash --login");
            let status = shell.stdin(Stdio::inherit()).status().context("cannot run ssh")?;
            Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(OWN_FAILURE))
        }
        Verb::Demo => {
            let spec = Spec::default();
            let machine = start(&Content { with_package: true, with_stand_ins: false, spec: &spec })?;
            require_package(&machine)?;
            Ok(u8::try_from(demo::demo(&machine)?).unwrap_or(OWN_FAILURE))
        }
        Verb::Bench { to } => {
            host::provide(host::TO_BENCH)?;
            let spec = Spec::default();
            let mut machine = start(&Content { with_package: true, with_stand_ins: true, spec: &spec })?;
            require_package(&machine)?;
            let cache = Cache::open()?;
            let package = stages::package(&cache)?.context("there is no package")?;
            let package = package.file_like("nvidia-reload_", ".deb")?;
            let searches = crowd::measure(&cache)?;
            let within = bench::bench(&mut machine, &spec, &package, &searches, &to)?;
            Ok(u8::from(!within))
        }
        Verb::Test(asked) => suite::test(&asked),
        Verb::Package { arm64, folder } => {
            for package in stages::leave_packages(&Cache::open()?, &folder, arm64)? {
                println!("{}", package.display());
            }
            Ok(0)
        }
        Verb::Build { machine } => {
            stages::provide(&Cache::open()?, &machine.content(&machine.spec(None)?))?;
            Ok(0)
        }
    }
}

fn run(content: &Content<'_>, scenario: &Scenario, arguments: &[String]) -> Result<u8> {
    let mut fleet = Fleet::start(&Cache::open()?, content, Some(scenario))?;
    match scenario.run(fleet.first(), content.spec, arguments, &Output::Ours, &Limit::default())? {
        End::Exit(status) => Ok(u8::try_from(status).unwrap_or(OWN_FAILURE)),
        End::TimedOut => Ok(OWN_FAILURE),
    }
}

fn start(content: &Content<'_>) -> Result<Machine> {
    let cache = Cache::open()?;
    let built = stages::provide(&cache, content)?;
    Machine::throw_away(&cache, &built, content.spec)
}

fn require_package(machine: &Machine) -> Result<()> {
    machine
        .ssh()?
        .output("command -v nvidia-reload")
        .map(drop)
        .context("nvidia-reload is not installed in the machine: this checkout has no package yet")
}
