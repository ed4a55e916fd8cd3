//! The way back: the files of the driver that was loaded, where the new one failed.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use ledger::{Act, DriverFiles, Module, Object, Run, Step};
use modules::{DRIVER, Disk, loaded};
use slots::{Slot, find, lock_for_run, on_disk, put_in_place, slots};
use step::Context;

use crate::exchange::{must_be_whole, note, old, without};
use crate::packages;

/// Puts the old driver's files back, if its successor was found not to serve or if they were about to be
/// exchanged. A run that was cancelled before says nothing of the driver on disk: that stays.
pub(crate) fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()?.filter(|run| !run.committed) else { return Ok(()) };
    let acts = run.outstanding(Step::InstallDriver);
    if acts.is_empty() && !run.driver_failed {
        return Ok(());
    }
    let Some((old, version)) = old(&run).and_then(|old| Some((old, old.version.clone()?))) else {
        return Ok(());
    };
    packages::wait_a_little(context);
    let disk = Disk::open(&context.root)?;
    if acts.is_empty() && is_on_disk(context, &disk, &run, &version)? {
        return Ok(());
    }
    let result = put_back(context, &run, &disk, old, &version, &acts);
    if let Err(error) = &result {
        let reason = format!("the files of driver {version} are not back: {error:#}");
        let acts = context.ledger.read()?.map(|run| run.outstanding(Step::InstallDriver)).unwrap_or_default();
        if acts.is_empty() {
            // No file was exchanged, and the disk is as the run found it.
            context.ledger.step_failed(Step::InstallDriver, &reason)?;
        }
        acts.iter().try_for_each(|act| context.ledger.undo_failed(act.id, &reason))?;
    }
    result
}

fn put_back(
    context: &Context,
    run: &Run,
    disk: &Disk,
    old: &Module,
    version: &str,
    acts: &[Act],
) -> Result<()> {
    if run.boot == context.ledger.boot()
        && let Some(now) = loaded(&context.root, &old.name)?
        && !is_same(&now.module, old)
    {
        bail!(
            "{} is still loaded in version {}",
            old.name,
            now.module.version.as_deref().unwrap_or("unknown")
        );
    }
    let _lock = lock_for_run(context)?;
    let slot = slots(&context.root)?
        .into_iter()
        .find(|slot| slot.manifest.version == version && slot.has(old).is_some())
        .with_context(|| format!("driver {version} is in no slot: install it again"))?;
    fits(&slot, disk, version)?;
    must_be_whole(&slot)?;
    let mut others = without(on_disk(&context.root, disk, Some(&slot))?, version);
    others.extend(acts.iter().flat_map(announced).cloned());
    let mut ids: Vec<u64> = acts.iter().map(|act| act.id).collect();
    if ids.is_empty() {
        let files = DriverFiles { version: version.to_owned(), others: others.clone() };
        ids.push(context.ledger.intent(Step::InstallDriver, Object::DriverFiles(files))?);
    }
    context.status(format!("putting the files of driver {version} back"));
    let placed = put_in_place(&context.root, &slot, disk, &others)?;
    let said = note(&context.root, &run.id, &slot, &others, &placed);
    ids.into_iter().try_for_each(|id| context.ledger.undone(id))?;
    context.warn(said);
    Ok(())
}

/// That libraries of the driver `version` have modules of the same for the kernel that runs: from the slot, or
/// where that is for another kernel, on disk already.
fn fits(slot: &Slot, disk: &Disk, version: &str) -> Result<()> {
    let Some(misfit) = slot.misfit() else { return Ok(()) };
    let here = find(disk, DRIVER)?.and_then(|file| file.version);
    if here.as_deref() == Some(version) {
        return Ok(());
    }
    bail!(
        "{misfit}, for which the disk has {}: boot the kernel {}, or install driver {version} for this one",
        here.map_or_else(|| "no driver".to_owned(), |here| format!("driver {here}")),
        slot.manifest.kernel
    );
}

fn announced(act: &Act) -> impl Iterator<Item = &String> {
    static NONE: BTreeSet<String> = BTreeSet::new();
    match &act.object {
        Object::DriverFiles(files) => files.others.iter(),
        _ => NONE.iter(),
    }
}

/// Whether the disk has the very driver that was loaded, and no other's libraries.
fn is_on_disk(context: &Context, disk: &Disk, run: &Run, version: &str) -> Result<bool> {
    let kept = slots(&context.root)?.into_iter().find(|slot| slot.manifest.version == version);
    if !without(on_disk(&context.root, disk, kept.as_ref())?, version).is_empty() {
        return Ok(false);
    }
    for module in &run.snapshot.modules {
        if !find(disk, &module.name)?.is_some_and(|file| file.is(module)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_same(now: &Module, then: &Module) -> bool {
    now.version == then.version && now.srcversion == then.srcversion
}

#[cfg(test)]
mod tests {
    use step::Root;

    use super::*;

    #[test]
    fn a_slot_for_another_kernel_is_no_way_back_without_modules_for_this_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let disk = Disk::open(&root).expect("opens");
        let here = disk.directory().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fits = |kernel: &str| fits(&crate::tests::slot(&root, kernel), &disk, "535.261.03");
        fits(&here).expect("is for this one");
        let error = fits("1.0-another").expect_err("is for another").to_string();
        let expected =
            format!("is for the kernel 1.0-another, and {here} runs, for which the disk has no driver: boot");
        assert!(error.contains(&expected), "{error}");
    }
}
