// SPDX-License-Identifier: MIT
//! The undo: the files of the driver that was loaded, where the new one failed.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use ledger::{Act, DriverFiles, Module, Object, Run, Step};
use modules::{DRIVER, Disk, loaded};
use slots::{Slot, find, lock_for_run, on_disk, put_in_place, slots};
use step::{Context, Undo};

use crate::exchange::{must_be_whole, note, old, without};
use crate::healed::set_again;
use crate::packages;

/// Puts the old driver's files back, if its successor was found not to serve or if they were about to be
/// exchanged. A run that was cancelled before says nothing of the driver on disk: that stays.
pub(crate) fn undo(context: &Context) -> Result<()> {
    let Some(undo) = Undo::begin(context)?.filter(|undo| !undo.run.committed) else { return Ok(()) };
    let (healed, acts): (Vec<Act>, Vec<Act>) = undo
        .run
        .outstanding(Step::InstallDriver)
        .into_iter()
        .partition(|act| matches!(act.object, Object::Healed { .. }));
    let is_back = files_back(&undo, acts);
    set_again(&undo, healed, is_back);
    undo.end("the driver on disk is not as it was")
}

/// Puts the old driver's files back, where that is due. Whether they are there then.
fn files_back(undo: &Undo, acts: Vec<Act>) -> bool {
    let context = undo.context;
    if acts.is_empty() && !undo.run.driver_failed {
        return false;
    }
    let Some((old, version)) = old(&undo.run).and_then(|old| Some((old, old.version.clone()?))) else {
        return false;
    };
    packages::wait_a_little(context);
    let files = format!("the files of driver {version}");
    let mut ids: Vec<u64> = acts.iter().map(|act| act.id).collect();
    match put_back(undo, old, &version, &acts, &mut ids) {
        Ok(()) => {
            ids.into_iter().for_each(|id| undo.restored(id, &files));
            true
        }
        Err(error) => {
            let reason = format!("{files} are not back: {error:#}");
            if ids.is_empty() {
                // No file was exchanged, and the disk is as the run found it.
                undo.written(&files, context.ledger.step_failed(Step::InstallDriver, &reason));
            }
            ids.into_iter().for_each(|id| undo.also_failed(id, &files, &reason));
            undo.problem(format!("{files} are not back: {error:#}"));
            false
        }
    }
}

/// Puts them back, unless they are there. `ids` are the acts that this undoes; an exchange that no act has
/// announced becomes one.
fn put_back(undo: &Undo, old: &Module, version: &str, acts: &[Act], ids: &mut Vec<u64>) -> Result<()> {
    let (context, run) = (undo.context, &undo.run);
    let disk = Disk::open(&context.root)?;
    if acts.is_empty() && is_on_disk(context, &disk, run, version)? {
        return Ok(());
    }
    if undo.is_of_this_boot()
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
    fits(&slot, &disk, version)?;
    must_be_whole(&slot)?;
    let mut others = without(on_disk(&context.root, &disk, Some(&slot))?, version);
    others.extend(acts.iter().flat_map(announced).cloned());
    if acts.is_empty() {
        let files = Object::DriverFiles(DriverFiles { version: version.to_owned(), others: others.clone() });
        let name = files.to_string();
        match context.ledger.intent(Step::InstallDriver, files) {
            Ok(act) => ids.push(act.id()),
            // What was there before goes back in any case: the run has the driver's failure, by which a recovery
            // does the same.
            Err(error) => undo.written(name, Err(error)),
        }
    }
    context.status(format!("putting the files of driver {version} back"));
    let placed = put_in_place(&context.root, &slot, &disk, &others)?;
    context.warn(note(&context.root, &run.id, &slot, &others, &placed));
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
    let slot = slots(&context.root)?.into_iter().find(|slot| slot.manifest.version == version);
    if !without(on_disk(&context.root, disk, slot.as_ref())?, version).is_empty() {
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
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use ledger::{Ledger, Snapshot, State};
    use step::Root;

    use super::*;

    const OLD: &str = "535.261.03";
    const MODULE: &str = "/lib/modules/here/nvidia.ko";

    /// A machine whose new driver was found to fail, with the slot of the old one, and a ledger that cannot be
    /// written when its files are put back. `exchanges` were announced by the run itself.
    fn machine(exchanges: usize) -> (tempfile::TempDir, Context) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let module = Module {
            name: DRIVER.into(),
            version: Some(OLD.into()),
            srcversion: Some("A".into()),
            parameters: Default::default(),
        };
        let ledger = Ledger::new(root.path("/var/lib/nvidia-reload"), "this-boot");
        ledger.open(Snapshot { modules: vec![module], ..Snapshot::default() }).expect("opens");
        for _ in 0..exchanges {
            let files = DriverFiles { version: OLD.into(), others: BTreeSet::new() };
            ledger.act(Step::InstallDriver, Object::DriverFiles(files), || Ok(())).expect("writes");
        }
        ledger.step_failed(Step::Verify, "it does not work").expect("writes");
        let disk = Disk::open(&root).expect("opens");
        let kernel = disk.directory().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let slot = root.path(slots::DIRECTORY).join(OLD);
        fs::create_dir_all(slot.join("modules")).expect("creates");
        fs::write(slot.join("modules/nvidia.ko"), "old module").expect("writes");
        let (uid, gid) = fs::metadata(&slot).map(|data| (data.uid(), data.gid())).expect("is there");
        let manifest = serde_json::json!({
            "schema": "nvidia-reload.slot/1", "version": OLD, "kernel": kernel, "made_usec": 1,
            "origin": "names", "packages": [], "files": [{
                "kind": "file", "path": MODULE, "mode": 0o644, "uid": uid, "gid": gid, "size": 10,
                "modified_nsec": 1, "sha256": SHA256,
                "module": {"name": DRIVER, "version": OLD, "srcversion": "A", "vermagic": null, "options": ""},
            }],
        });
        fs::write(slot.join("manifest.json"), manifest.to_string()).expect("writes");
        let lock = root.path("/var/lib/nvidia-reload/ledger.lock");
        fs::remove_file(&lock).expect("removes");
        fs::create_dir(&lock).expect("is in the way");
        (directory, Context { step: Step::InstallDriver, root, ledger })
    }

    const SHA256: &str = "a44da7ca455628b144e30b98954f660c5bc5c1a69937c615b279811bf73a1823";

    fn states(context: &Context) -> Vec<State> {
        let run = context.ledger.read().expect("reads").expect("is open");
        run.acts.into_iter().map(|act| act.state).collect()
    }

    #[test]
    fn a_ledger_that_cannot_be_written_keeps_no_file_from_being_put_back() {
        for exchanges in [0, 2] {
            let (_directory, context) = machine(exchanges);
            let error = undo(&context).expect_err("nothing can be written").to_string();
            assert_eq!(fs::read_to_string(context.root.path(MODULE)).expect(&error), "old module");
            assert!(context.root.path("/var/lib/nvidia-reload/put-back.json").exists(), "{error}");
            let unwritten = error.matches("the ledger does not have this").count();
            assert_eq!(unwritten, exchanges.max(1), "{error}");
            fs::remove_dir(context.root.path("/var/lib/nvidia-reload/ledger.lock")).expect("removes");
            undo(&context).expect("writes that they are back");
            assert!(states(&context).iter().all(|state| *state == State::Undone));
        }
    }

    #[test]
    fn what_keeps_the_files_away_is_named_whatever_the_ledger_takes() {
        let (_directory, context) = machine(2);
        fs::remove_dir_all(context.root.path(slots::DIRECTORY)).expect("removes");
        let error = undo(&context).expect_err("there is no slot").to_string();
        assert!(error.contains("driver 535.261.03 is in no slot: install it again"), "{error}");
        assert_eq!(error.matches("the ledger does not have this").count(), 2, "{error}");
    }

    #[test]
    fn a_slot_for_another_kernel_cannot_be_rolled_back_to_without_modules_for_this_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let disk = Disk::open(&root).expect("opens");
        let here = disk.directory().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fits = |kernel: &str| fits(&crate::tests::slot(&root, kernel), &disk, "535.261.03");
        fits(&here).expect("is for this one");
        let error = fits("1.0-another").expect_err("is for another").to_string();
        let expected = format!(
            "is for the kernel 1.0-another, but {here} is running, for which the disk has no driver: boot"
        );
        assert!(error.contains(&expected), "{error}");
    }
}
