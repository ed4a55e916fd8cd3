// SPDX-License-Identifier: MIT
//! Lets programs find the loaded driver's own libraries while another driver is installed, so that new programs work
//! before the reload; and ends that.

#![forbid(unsafe_code)]

mod judge;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use clap::{Parser, Subcommand};
use judge::{Judged, State, judge, library};
use ledger::Node;
use modules::{DRIVER, Disk, File, Source, driver_version, load, nodes};
use slots::{HEALED, Healed, Slot, end, heal, lock_to_save};
use step::{Exit, Priority, Root, fix_path, log_as, show_status};

/// The unit that runs this.
const UNIT: &str = "nvidia-reload-heal.service";

/// How long a module may take to load.
const LOAD: Duration = Duration::from_secs(60);

/// Who knows CDI specifications.
const CDI: &str = "/usr/libexec/nvidia-reload/drain-containers";

/// How long it may take to write them again.
const CDI_TIME: Duration = Duration::from_secs(180);

#[derive(Parser)]
struct Arguments {
    /// What to do; systemd's units and the command call the helper with these.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Say what `run` would do, as JSON; changes nothing.
    Judge,
    /// Have the loaded driver's libraries found.
    Run,
    /// Have the libraries on disk found again.
    End,
    /// The same, unless the driver of this boot is the one whose libraries are found.
    Boot,
}

fn main() -> ExitCode {
    fix_path();
    let verb = Arguments::parse().verb;
    match act(&Root::system(), &verb) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // The command shows the last status line.
            show_status(&format!("{error:#}"));
            say(Priority::Error, &format!("{error:#}"));
            Exit::Failed.into()
        }
    }
}

fn act(root: &Root, verb: &Verb) -> Result<Exit> {
    match verb {
        Verb::Judge => {
            let judged = judge(root)?;
            println!("{}", serde_json::to_string(&judged)?);
            Ok(judged.exit())
        }
        Verb::Run => {
            // A run, or a save of the driver, begins after this or is seen.
            let _lock = lock_to_save(root)?;
            let judged = judge(root)?;
            if judged.state != State::Possible {
                let text = judged.text();
                show_status(&text);
                say(if judged.exit() == Exit::Done { Priority::Info } else { Priority::Error }, &text);
                return Ok(judged.exit());
            }
            run(root, judged)?;
            Ok(Exit::Done)
        }
        Verb::End => {
            let _lock = lock_to_save(root)?;
            if end(root)? {
                say(Priority::Info, "the libraries on disk are found again");
            }
            Ok(Exit::Done)
        }
        Verb::Boot => boot(root).map(|()| Exit::Done),
    }
}

fn run(root: &Root, judged: Judged) -> Result<()> {
    let slot = judged.slot.context("there is no slot")?;
    let version = slot.manifest.version.clone();
    show_status(&format!("having the libraries of driver {version} found"));
    if let Some(file) = judged.load {
        bring(root, file)?;
    }
    let healed = found(root, &slot, judged.instead_of).inspect_err(|_| {
        // Half of it is worse than none.
        if let Err(error) = end(root) {
            say(
                Priority::Error,
                &format!("what was done is not undone: {error:#}; `nvidia-reload heal --end` tries again"),
            );
        }
    })?;
    if let Err(error) = specifications(root, healed) {
        say(Priority::Warning, &format!("CDI specifications are not written again: {error:#}"));
    }
    say(Priority::Info, &format!("programs find the libraries of driver {version}, which is loaded"));
    Ok(())
}

/// Loads a module of the loaded driver that a program would load in the version on disk, which does not fit; with
/// its device nodes.
fn bring(root: &Root, file: File) -> Result<()> {
    let disk = Disk::open(root)?;
    let name = file.name.clone();
    load(root, &disk, &Source::Slot(file), Instant::now() + LOAD)?;
    say(Priority::Info, &format!("{name} of the loaded driver is loaded from its slot"));
    let node = |path: &str, minor| Node {
        path: path.to_owned(),
        class: "nvidia-uvm".to_owned(),
        major: 0,
        minor,
        // As nvidia-modprobe makes them where the driver's parameters say nothing else.
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    nodes::refresh(root, &[node("/dev/nvidia-uvm", 0), node("/dev/nvidia-uvm-tools", 1)])?;
    Ok(())
}

/// Has the libraries found, and reads back that they are.
fn found(root: &Root, slot: &Slot, instead_of: Option<String>) -> Result<Healed> {
    let healed = heal(root, slot, instead_of)?;
    match library()? {
        Some((path, _)) if path.starts_with(HEALED) => Ok(healed),
        Some((path, _)) => bail!(
            "the linker still finds {}: does /etc/ld.so.conf include /etc/ld.so.conf.d/*.conf?",
            path.display()
        ),
        None => bail!("the linker finds no library of the driver"),
    }
}

/// Has CDI specifications written again that name another driver's libraries.
fn specifications(root: &Root, mut healed: Healed) -> Result<()> {
    let until = Instant::now() + CDI_TIME;
    let (status, text) =
        bounded::child(Command::new(CDI).arg("cdi-specs").env_remove("NOTIFY_SOCKET"), until, bounded::BODY)
            .with_context(|| format!("run {CDI}"))?;
    if !status.success() {
        bail!("{CDI} cdi-specs ended with {status}");
    }
    let paths: Vec<String> =
        serde_json::from_slice(&text).context("understand the list of specifications")?;
    if paths.is_empty() {
        return Ok(());
    }
    healed.save_cdi(root, paths)?;
    let status = bounded::run(Command::new(CDI).arg("cdi-refresh").env_remove("NOTIFY_SOCKET"), until)
        .with_context(|| format!("run {CDI}"))?;
    if !status.success() {
        bail!("{CDI} cdi-refresh ended with {status}");
    }
    Ok(())
}

/// At boot: the driver on disk is loaded, and its libraries are the right ones; unless an initramfs, or the kernel
/// that was booted, has brought the old one.
fn boot(root: &Root) -> Result<()> {
    let version = match Healed::read(root) {
        Ok(Some(healed)) => Some(healed.version),
        Ok(None) => None,
        Err(error) => {
            say(Priority::Warning, &format!("{error:#}"));
            None
        }
    };
    let comes = match driver_version(root)? {
        Some(loaded) => Some(loaded),
        None => on_disk(root).unwrap_or_else(|error| {
            say(Priority::Warning, &format!("{error:#}"));
            None
        }),
    };
    if version.is_some() && comes == version {
        say(Priority::Info, &format!("this boot has driver {} again", version.unwrap_or_default()));
        return Ok(());
    }
    if end(root)? {
        say(Priority::Info, "this boot has the driver on disk: its libraries are found again");
    }
    Ok(())
}

fn on_disk(root: &Root) -> Result<Option<String>, Error> {
    Ok(Disk::open(root)?.find(DRIVER)?.and_then(|file| file.version))
}

fn say(priority: Priority, text: &str) {
    log_as("heal", UNIT, priority, text, &[]);
}

/// Whether `path` is on a file system that may be written to and run from.
pub(crate) fn mount_flags(path: &Path) -> Result<nix::sys::statvfs::FsFlags> {
    let found = nix::sys::statvfs::statvfs(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(found.flags())
}
