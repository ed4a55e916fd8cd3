// SPDX-License-Identifier: MIT
//! Another driver on disk: one from a slot, or what NVIDIA's installer brings.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ledger::{DriverFiles, Module, Object, Run, Step};
use modules::{DRIVER, Disk};
use slots::{Note, Placed, Slot, lock_for_run, on_disk, put_in_place, sentence, slots, sync};
use step::{Context, Root};

/// Where the installer tells what it does.
const LOG: &str = "/var/log/nvidia-installer.log";

/// How many of its last lines are reported.
const SHOWN: usize = 8;

/// How long the installer may take: it may have DKMS build the modules for each kernel.
const INSTALLER: Duration = Duration::from_secs(30 * 60);

/// Puts driver `version` of a slot on disk.
pub(crate) fn from_slot(context: &Context, run: &Run, version: &str) -> Result<()> {
    let _lock = lock_for_run(context)?;
    let slot = slots(&context.root)?
        .into_iter()
        .find(|slot| slot.manifest.version == version)
        .with_context(|| format!("driver {version} has no slot: `nvidia-reload slots` lists the slots"))?;
    if let Some(misfit) = slot.misfit() {
        bail!("{misfit}");
    }
    must_be_whole(&slot)?;
    let disk = Disk::open(&context.root)?;
    let files = exchanged(context, run, &disk, &slot, version)?;
    context.status(format!("putting driver {version} on disk"));
    let said = context.ledger.act(Step::InstallDriver, files, || {
        let others = without(on_disk(&context.root, &disk, Some(&slot))?, version);
        let placed = put_in_place(&context.root, &slot, &disk, &others)?;
        Ok(note(&context.root, &run.id, &slot, &others, &placed))
    })?;
    context.warn(said);
    Ok(())
}

/// Runs NVIDIA's installer.
pub(crate) fn by_installer(
    context: &Context,
    run: &Run,
    version: &str,
    file: &Path,
    arguments: &[String],
) -> Result<()> {
    let old = old(run).context("no driver was loaded: there is none to roll back to")?;
    // A save to a slot meanwhile would have half of each.
    let _lock = lock_for_run(context)?;
    let slot = slots(&context.root)?.into_iter().find(|slot| slot.find(old).is_some());
    // From its first file on there is no other way to undo it.
    let slot = slot.context("the loaded driver has no slot: a rollback would not be possible")?;
    must_be_whole(&slot)?;
    let files = exchanged(context, run, &Disk::open(&context.root)?, &slot, version)?;
    context.status(format!("NVIDIA's installer puts driver {version} on disk"));
    context
        .ledger
        .act(Step::InstallDriver, files, || Ok(run_installer(&context.root, version, file, arguments)?))?;
    context.info(format!("NVIDIA's installer has put driver {version} on disk"));
    Ok(())
}

fn run_installer(root: &Root, version: &str, file: &Path, arguments: &[String]) -> Result<()> {
    let mut command = Command::new("sh");
    command
        .arg(file)
        // Nothing is asked; and the module is not tried out by loading it: that is the next step's, which
        // knows how to undo it.
        .args(["--silent", "--skip-module-load", "--tmpdir"])
        .arg(file.parent().unwrap_or(Path::new("/tmp")))
        .args(arguments)
        // What it has started is killed with it: the old files are put back next.
        .process_group(0);
    let status = bounded::run(&mut command, Instant::now() + INSTALLER)
        .with_context(|| format!("run NVIDIA's installer {}", file.display()))?;
    if !status.success() {
        bail!("NVIDIA's installer ended with {status}; its log ends with: {}", end(&root.path(LOG)));
    }
    match Disk::open(root)?.find(DRIVER)?.and_then(|file| file.version) {
        Some(now) if now == version => {}
        now => bail!(
            "NVIDIA's installer reports driver {version} on disk, but the module there is {}",
            now.as_deref().unwrap_or("of no known version")
        ),
    }
    // The installer waits for no disk: after a power cut its files might be there, and all zeros.
    sync(root)
}

/// The last lines of the installer's log.
fn end(log: &Path) -> String {
    match std::fs::read(log) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            lines[lines.len().saturating_sub(SHOWN)..].join(" / ")
        }
        Err(error) => format!("(cannot read {}: {error})", log.display()),
    }
}

/// The files on disk, which are about to become those of `version`; `slot` has libraries where they are looked
/// for.
fn exchanged(context: &Context, run: &Run, disk: &Disk, slot: &Slot, version: &str) -> Result<Object> {
    let old = old(run).and_then(|module| module.version.clone());
    let old =
        old.context("the version of the loaded driver is not known: a rollback would not be possible")?;
    let mut others = on_disk(&context.root, disk, Some(slot))?;
    others.insert(version.to_owned());
    let others = without(others, &old);
    Ok(Object::DriverFiles(DriverFiles { version: old, others }))
}

/// The driver's first module as it was loaded when the run began.
pub(crate) fn old(run: &Run) -> Option<&Module> {
    run.snapshot.modules.iter().find(|module| module.name == DRIVER)
}

pub(crate) fn must_be_whole(slot: &Slot) -> Result<()> {
    let corrupt = slot.corrupt_files();
    if !corrupt.is_empty() {
        bail!("the slot of driver {} is corrupt: {}", slot.manifest.version, corrupt.join("; "));
    }
    Ok(())
}

pub(crate) fn without(mut versions: BTreeSet<String>, version: &str) -> BTreeSet<String> {
    versions.remove(version);
    versions
}

/// Notes what is on disk now, and says it. A note that cannot be made is no reason to give up a driver whose
/// files are all in place.
pub(crate) fn note(
    root: &Root,
    run: &str,
    slot: &Slot,
    others: &BTreeSet<String>,
    placed: &Placed,
) -> String {
    let instead_of = highest(others);
    let what = sentence(&slot.manifest.version, instead_of.as_deref());
    match Note::write(root, run, slot, instead_of, placed) {
        Ok(note) => format!("{what}: {}", note.remedy),
        Err(error) => format!("{what}; the package database is not, and there is no note of it: {error:#}"),
    }
}

/// The one to name where there are several.
fn highest(versions: &BTreeSet<String>) -> Option<String> {
    versions.last().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_cannot_be_made_is_said_and_no_more() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let slot = crate::tests::slot(&root, "1.0-any");
        let others = ["550.1".to_owned()].into();
        let said = || note(&root, "r", &slot, &others, &Placed::default());
        assert_eq!(
            said(),
            "the files of driver 535.261.03 are on disk again, in place of 550.1: install driver 535.261.03 \
             again, or 550.1, by the way it came"
        );
        let in_the_way = root.path("/var/lib/nvidia-reload/put-back.json");
        std::fs::remove_file(&in_the_way).expect("removes");
        std::fs::create_dir(&in_the_way).expect("creates");
        let said = said();
        let what = "the files of driver 535.261.03 are on disk again, in place of 550.1; ";
        assert!(said.starts_with(what) && said.contains("there is no note of it: write"), "{said}");
    }
}
