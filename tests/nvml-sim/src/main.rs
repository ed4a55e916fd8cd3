// SPDX-License-Identifier: MIT
//! Puts the simulation in NVML's place, and shows what is set in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use nix::mount::{MsFlags, mount};
use nvml_sim::config::{Config, FILE};
use nvml_sim::driver::generation;
use nvml_sim::settings::{self, Stored};

/// Simulate NVML in the test machine
#[derive(Parser)]
#[command(disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Put the simulation in the place of NVML, for every driver that the machine has
    ///
    /// What the real module says of its GPUs in /proc/driver is hidden from then on, and the product is not
    /// asked any more to ignore them (gpus.ignore).
    ///
    /// What the description says under `set` is set then, in the module that is loaded.
    Install {
        /// What GPUs there are, and what goes wrong
        description: PathBuf,
        /// The library
        #[arg(long, default_value = "/usr/local/lib/nvml-sim/libnvml_sim.so")]
        library: PathBuf,
    },
    /// Print what is set, as JSON, GPU by GPU
    Show,
}

/// Where NVML is: in the system, and where `driver-on-disk` takes it from.
const PLACES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/share/rig/drivers"];

/// Says that NVML does not show the machine's own GPUs, which is over now.
const EXCEPTION: &str = "/etc/nvidia-reload/conf.d/50-rig-gpus.toml";

/// What holds for all units of the product.
const UNITS: &str = "/run/systemd/system/nvidia-reload-.service.d";

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Install { description, library } => install(&description, &library),
        Verb::Show => show(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nvml-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn install(description: &Path, library: &Path) -> Result<()> {
    fs::copy(description, FILE).with_context(|| format!("copy {} to {FILE}", description.display()))?;
    let config = Config::load()?;
    for place in libraries()? {
        // Beside it and renamed: a process that has the old one open keeps it.
        let new = place.with_extension("new");
        fs::copy(library, &new)
            .and_then(|_| fs::rename(&new, &place))
            .with_context(|| format!("put {} in the place of {}", library.display(), place.display()))?;
    }
    // What the real module says of its own GPUs, which never start, would contradict.
    mount(Some("nvml-sim"), "/proc/driver", Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)
        .context("hide /proc/driver")?;
    // The steps have a /proc of their own (ProtectProc=), which shows what is hidden under a mount.
    fs::create_dir_all(UNITS)
        .and_then(|()| {
            fs::write(format!("{UNITS}/50-nvml-sim.conf"), "[Service]\nTemporaryFileSystem=/proc/driver:ro\n")
        })
        .with_context(|| format!("write into {UNITS}"))?;
    let reloaded = Command::new("systemctl").arg("daemon-reload").status().context("run systemctl")?;
    anyhow::ensure!(reloaded.success(), "systemctl daemon-reload: {reloaded}");
    if Path::new(EXCEPTION).exists() {
        fs::remove_file(EXCEPTION).with_context(|| format!("remove {EXCEPTION}"))?;
    }
    let generation = generation().context("the driver is not loaded")?;
    settings::with(Path::new(settings::FILE), generation, &config, |stored| {
        let set = config.gpu.iter().map(|gpu| (gpu.uuid.clone().unwrap_or_default(), gpu.set.clone()));
        *stored = Stored { generation, gpus: set.collect() };
    })
}

/// NVML's files, each named for its version; the names without one are links to them.
fn libraries() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = PLACES.map(PathBuf::from).into();
    while let Some(directory) = todo.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix("libnvidia-ml.so."));
            if kind.is_dir() && directory.starts_with(PLACES[1]) {
                todo.push(entry.path());
            } else if kind.is_file() && version.is_some_and(|version| version.contains('.')) {
                found.push(entry.path());
            }
        }
    }
    anyhow::ensure!(!found.is_empty(), "there is no libnvidia-ml.so.VERSION below {}", PLACES.join(", "));
    Ok(found)
}

fn show() -> Result<()> {
    let config = Config::load()?;
    let generation = generation().context("the driver is not loaded")?;
    let text = settings::with(Path::new(settings::FILE), generation, &config, |stored| {
        serde_json::to_string_pretty(&stored.gpus)
    })??;
    println!("{text}");
    Ok(())
}
