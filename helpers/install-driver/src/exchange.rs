//! Another driver on disk: a kept one.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use ledger::{DriverFiles, Module, Object, Run, Step};
use modules::{DRIVER, Disk};
use slots::{Note, Slot, lock, on_disk, put_in_place, slots};
use step::Context;

/// Puts the kept driver `version` on disk.
pub(crate) fn from_slot(context: &Context, run: &Run, version: &str) -> Result<()> {
    let _lock = lock(&context.root)?;
    let slot = slots(&context.root)?
        .into_iter()
        .find(|slot| slot.manifest.version == version)
        .with_context(|| format!("driver {version} is not kept: `nvidia-reload slots` shows what is"))?;
    must_be_whole(&slot)?;
    let disk = Disk::open(&context.root)?;
    let id = announce(context, run, &disk, version)?;
    context.status(format!("putting driver {version} on disk"));
    let others = without(on_disk(&context.root, &disk)?, version);
    let placed = put_in_place(&context.root, &slot, &disk, &others)?;
    let note = Note::write(&context.root, &run.id, &slot, highest(&others), &placed)?;
    context.ledger.done(id)?;
    context.warn(format!("{}: {}", note.sentence(), note.remedy));
    Ok(())
}

/// Writes that the files on disk are about to become those of `version`.
pub(crate) fn announce(context: &Context, run: &Run, disk: &Disk, version: &str) -> Result<u64> {
    let old = old(run).and_then(|module| module.version.clone());
    let old =
        old.context("the version of the driver that was loaded is not known: it could not come back")?;
    let mut others = on_disk(&context.root, disk)?;
    others.insert(version.to_owned());
    let others = without(others, &old);
    context.ledger.intent(Step::InstallDriver, Object::DriverFiles(DriverFiles { version: old, others }))
}

/// The driver's first module as it was loaded when the run began.
pub(crate) fn old(run: &Run) -> Option<&Module> {
    run.snapshot.modules.iter().find(|module| module.name == DRIVER)
}

pub(crate) fn must_be_whole(slot: &Slot) -> Result<()> {
    let spoiled = slot.spoiled();
    if !spoiled.is_empty() {
        bail!("the kept driver {} is spoiled: {}", slot.manifest.version, spoiled.join("; "));
    }
    Ok(())
}

pub(crate) fn without(mut versions: BTreeSet<String>, version: &str) -> BTreeSet<String> {
    versions.remove(version);
    versions
}

/// The one to name where there are several.
pub(crate) fn highest(versions: &BTreeSet<String>) -> Option<String> {
    versions.last().cloned()
}
