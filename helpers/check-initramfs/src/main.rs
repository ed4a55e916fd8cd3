// SPDX-License-Identifier: MIT
//! Finds modules of another driver than the one on disk in the initramfs of the running kernel: the next boot
//! would load them. Reports them, or rebuilds the initramfs, as the configuration says.

#![forbid(unsafe_code)]

mod archive;

use std::io::copy;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use initramfs::{Contents, Marks, Packed, maker, seen};
use modules::Disk;
use step::{Config, Priority, Root, StaleInitramfs, fix_path, log_as, open_ledger, show_status};

/// The unit that runs this after a reload.
const UNIT: &str = "nvidia-reload-check-initramfs.service";

/// How long an initramfs may take to be made: with DKMS and compression at their worst, on a slow machine.
const MAKE: Duration = Duration::from_secs(12 * 60);

#[derive(Parser)]
struct Arguments {
    /// What to do; systemd's units call the helper with these.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Look, where a run has brought another driver, and do what the configuration says about modules that are
    /// stale.
    Run,
    /// Look, for those who ask later; changes nothing.
    Look,
}

fn main() -> ExitCode {
    fix_path();
    let verb = Arguments::parse().verb;
    let root = Root::system();
    match act(&root, &verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(Priority::Error, &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn act(root: &Root, verb: &Verb) -> Result<()> {
    // What the next boot is to load is known once the new driver works.
    if matches!(verb, Verb::Run) && !open_ledger(root)?.read()?.is_some_and(|run| run.committed) {
        return Ok(());
    }
    let release = modules::release(root)?;
    let disk = Disk::open(root)?;
    let Some((archive, stale)) = look(root, &disk, &release)? else { return Ok(()) };
    let found = format!("{} holds {}, and the disk has another driver", archive.display(), list(&stale));
    let make = maker(root, &archive, &release);
    let rebuild = matches!(verb, Verb::Run) && config(root) == StaleInitramfs::Rebuild;
    let (true, Some(make)) = (rebuild, &make) else {
        let remedy = make.map_or("rebuild it".to_owned(), |make| format!("`{}` rebuilds it", make.join(" ")));
        say(Priority::Warning, &format!("{found}: the next boot would load the old one; {remedy}"));
        return Ok(());
    };
    let command = make.join(" ");
    say(Priority::Info, &format!("{found}: `{command}` rebuilds it"));
    show_status(&command);
    let mut program = Command::new(&make[0]);
    program.args(&make[1..]).process_group(0);
    let status = bounded::run(&mut program, Instant::now() + MAKE)
        .with_context(|| format!("run `{command}`; the next boot would load {}", list(&stale)))?;
    if !status.success() {
        bail!("`{command}` ended with {status}: the next boot would load {}", list(&stale));
    }
    if let Some((archive, _)) = look(root, &disk, &release)? {
        bail!("{} still holds {}: the next boot would load the old driver", archive.display(), list(&stale));
    }
    say(Priority::Info, &format!("{} matches the disk", archive.display()));
    Ok(())
}

/// What to do about stale modules. A configuration that cannot be used has kept the run from beginning.
fn config(root: &Root) -> StaleInitramfs {
    match Config::load(root) {
        Ok(config) => config.initramfs.stale,
        Err(error) => {
            say(Priority::Warning, &format!("the configuration cannot be used: {error:#}"));
            StaleInitramfs::Warn
        }
    }
}

/// Looks into all archives that the next boot may load, and says where there is none. Returns the first that
/// holds another driver than the disk. One is read again only where it has changed.
fn look(root: &Root, disk: &Disk, release: &str) -> Result<Option<(PathBuf, Vec<Packed>)>> {
    let archives = initramfs::archives(root, release)?;
    if archives.is_empty() {
        say(Priority::Warning, &initramfs::not_found(release));
    }
    let (mut all, mut first, mut failed) = (Vec::new(), None, None);
    for archive in archives {
        let found = match seen(root, &archive)? {
            Some(seen) => Ok(seen),
            None => {
                show_status(&format!("looking into {}", archive.display()));
                read(disk, &archive, release)
            }
        };
        match found {
            Ok(found) => {
                let stale = found.stale(disk)?;
                if first.is_none() && !stale.is_empty() {
                    first = Some((archive, stale));
                }
                all.push(found);
            }
            // The others are looked at all the same.
            Err(error) => failed = Some(error),
        }
    }
    initramfs::save(root, all)?;
    match (first, failed) {
        (Some(first), _) => Ok(Some(first)),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
    }
}

/// What an archive holds.
fn read(disk: &Disk, archive: &Path, release: &str) -> Result<Contents> {
    let marks = Marks::of(archive)?;
    let modules = packed(disk, archive, release)
        .with_context(|| format!("look into the initramfs {}", archive.display()))?;
    Ok(Contents::new(archive.to_owned(), marks, modules))
}

/// The driver's modules for the kernel `release` in the archive.
fn packed(disk: &Disk, archive: &Path, release: &str) -> Result<Vec<Packed>> {
    let folder = format!("lib/modules/{release}/");
    let file_name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let wanted = |path: &str| {
        let name = file_name(path);
        // Where /lib is a link the archive has it under /usr/lib.
        path.trim_start_matches("usr/").starts_with(&folder)
            && name.starts_with(modules::DRIVER)
            && name.contains(".ko")
    };
    let mut found = Vec::new();
    let file = initramfs::open(archive).context("open it")?;
    archive::read(file, &wanted, &mut |path, content| {
        // libkmod reads files, and tells by the content how they are compressed.
        let mut copied = tempfile::Builder::new().suffix(&file_name(path)).tempfile().context("a copy")?;
        copy(content, &mut copied).with_context(|| format!("copy {path}"))?;
        let module = disk.inspect(copied.path()).with_context(|| format!("look at {path}"))?;
        if holders::is_of_driver(&module.name) {
            let modules::File { name, version, srcversion, .. } = module;
            found.push(Packed { name, path: path.to_owned(), version, srcversion });
        }
        Ok(())
    })?;
    Ok(found)
}

fn list(modules: &[Packed]) -> String {
    let one = |module: &Packed| match &module.version {
        Some(version) => format!("{} {version}", module.name),
        None => module.name.clone(),
    };
    modules.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn say(priority: Priority, text: &str) {
    log_as("check-initramfs", UNIT, priority, text, &[]);
}
