// SPDX-License-Identifier: MIT
//! The undo: what was unloaded is loaded again, in the version that it had, and what was set on the GPUs is
//! set again. Never anything newer: that is modprobe-chain's, and verified.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ledger::{Module, Object, Step};
use modules::{Disk, File, Source, gate, load, loaded, nodes};
use slots::{Slot, find, slots};
use step::{Context, Undo, undo_settings};

use crate::kind;

/// How long all loads together may take; GPUs are started one after the other while the module loads.
const LOADS: Duration = Duration::from_secs(5 * 60);

/// The same, and what the settings may take.
const ALL: Duration = Duration::from_secs(8 * 60);

/// Loads again what the ledger says was unloaded, and opens the gate, whatever happened before.
pub(crate) fn undo(context: &Context) -> Result<()> {
    context.needs(ALL);
    let undo = match Undo::begin(context) {
        Ok(Some(undo)) if kind::is_beside(&undo.run) => return Ok(()),
        Ok(Some(undo)) => undo,
        // Also then the driver must not be blocked.
        other => return gate::open(&context.root).and(other.map(drop)),
    };
    let loaded = modules_back(&undo);
    gate::open_of(&undo);
    match loaded {
        // The driver has lost what was set on the GPUs: the helper that speaks NVML sets it again, before the
        // workloads are started. After a good run restore has done so.
        Ok(()) if !undo.run.outstanding(Step::Settings).is_empty() => {
            if let Err(failed) = undo_settings() {
                undo.problem(failed);
            }
        }
        Ok(()) => {}
        Err(error) => undo.problem(format!("{error:#}")),
    }
    undo.end("the driver is not as it was")
}

fn modules_back(undo: &Undo) -> Result<()> {
    let context = undo.context;
    if undo.run.committed {
        return Ok(());
    }
    let mut acts = undo.run.outstanding(Step::RmmodChain);
    acts.retain(|act| matches!(act.object, Object::Module(_)));
    let acts = undo.of_this_boot(acts);
    if acts.is_empty() {
        return Ok(());
    }
    context.status("loading the driver that was loaded before");
    let disk = Disk::open(&context.root)?;
    let slots = whole(context, slots(&context.root)?);
    let until = Instant::now() + LOADS;
    let mut result = Ok(());
    for act in acts {
        let Object::Module(module) = &act.object else { continue };
        result = bring(context, &disk, &slots, module, until);
        match &result {
            Ok(()) => undo.restored(act.id, &act.object),
            // What comes later needs what could not be loaded.
            Err(error) => {
                undo.also_failed(act.id, &act.object, error);
                break;
            }
        }
    }
    match nodes::refresh(&context.root, &undo.run.snapshot.nodes) {
        Ok(changes) => changes.iter().for_each(|change| context.info(change.to_string())),
        Err(error) => undo.problem(format!("{error:#}")),
    }
    result.context("the driver is not loaded again")?;
    context.info("the driver is loaded again");
    Ok(())
}

/// Loads `module` again, unless it was never unloaded.
fn bring(context: &Context, disk: &Disk, slots: &[Slot], module: &Module, until: Instant) -> Result<()> {
    if let Some(now) = loaded(&context.root, &module.name)? {
        if let Some(trouble) = now.trouble() {
            bail!("{trouble}");
        }
        if now.module.version == module.version && now.module.srcversion == module.srcversion {
            return Ok(());
        }
        bail!("{} is loaded in version {} and cannot be replaced", module.name, text(&now.module.version));
    }
    let on_disk = find(disk, &module.name)?;
    let in_slot = slots.iter().find_map(|slot| slot.find(module));
    let changed = |file: &File| {
        context.warn(format!(
            "{} is loaded with the options {:?} that it had; modprobe.d has {:?} now",
            file.name,
            file.options,
            on_disk.as_ref().map(|file| file.options.as_str()).unwrap_or_default()
        ));
    };
    let mut failed = Vec::new();
    for source in sources(module, on_disk.as_ref(), in_slot.as_ref()) {
        if let Source::Disk(file) = &source
            && on_disk.as_ref().is_some_and(|on_disk| on_disk.options != file.options)
        {
            changed(file);
        }
        match load(&context.root, disk, &source, until) {
            Ok(()) => return Ok(()),
            Err(error) => failed.push(format!("{error:#}")),
        }
        // Only the kernel's refusal leaves nothing behind.
        if loaded(&context.root, &module.name)?.is_some() {
            break;
        }
    }
    if failed.is_empty() {
        bail!(
            "no file for {} in version {}, neither on disk nor in a slot: install that version again, or load the one on disk with `modprobe {}`",
            module.name,
            text(&module.version),
            on_disk.as_ref().map_or(module.name.as_str(), |file| file.alias.as_str())
        );
    }
    bail!("{}", failed.join("; "))
}

/// Where the very module that was loaded can be loaded from, best first: from disk, with the options that it
/// had, since those on disk may be what the new driver failed on; or from its slot.
fn sources(module: &Module, on_disk: Option<&File>, in_slot: Option<&File>) -> Vec<Source> {
    let options = |file: &File| in_slot.map_or_else(|| file.options.clone(), |file| file.options.clone());
    let from_disk = on_disk
        .filter(|file| file.is(module))
        .map(|file| Source::Disk(File { options: options(file), ..file.clone() }));
    from_disk.into_iter().chain(in_slot.cloned().map(Source::Slot)).collect()
}

/// The slots whose modules are whole: the kernel need not notice a corrupt file.
fn whole(context: &Context, mut slots: Vec<Slot>) -> Vec<Slot> {
    slots.retain(|slot| {
        let corrupt = slot.corrupt_modules();
        if !corrupt.is_empty() {
            let version = &slot.manifest.version;
            context.warn(format!("the slot of driver {version} cannot be used: {}", corrupt.join("; ")));
        }
        corrupt.is_empty()
    });
    slots
}

fn text(version: &Option<String>) -> &str {
    version.as_deref().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ledger::{Ledger, Snapshot};
    use step::Root;

    use super::*;

    #[test]
    fn the_gate_opens_whatever_the_ledger_says() {
        for damage in ["", "\0", r#"{"v":999,"run":"r","boot":"b","realtime_usec":1,"event":"news"}"#] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            let ledger = Ledger::new(root.path("/var/lib/nvidia-reload"), "this-boot");
            ledger.open(Snapshot::default()).expect("opens");
            let gate = Object::Gate { path: gate::FILE.into() };
            let names = ["nvidia".to_owned()].into();
            let shut = || Ok(gate::shut(&root, &names)?);
            ledger.act(Step::RmmodChain, gate, shut).expect("shuts");
            if !damage.is_empty() {
                fs::write(root.path("/var/lib/nvidia-reload/ledger.jsonl"), format!("{damage}\n"))
                    .expect("writes");
            }
            let ledger = Ledger::new(root.path("/var/lib/nvidia-reload"), "this-boot");
            let context = Context { step: Step::RmmodChain, root, ledger };
            let result = undo(&context);
            assert!(!gate::is_shut(&context.root).expect("looks"), "{damage:?}: {result:?}");
            assert_eq!(result.is_err(), !damage.is_empty(), "{damage:?}: {result:?}");
            if damage.is_empty() {
                let run = context.ledger.read().expect("reads").expect("is open");
                assert!(run.missing().is_empty(), "the gate is noted as open");
            }
        }
    }

    fn file(version: &str, srcversion: &str, options: &str) -> File {
        File {
            name: "nvidia".into(),
            alias: "nvidia".into(),
            path: "/f".into(),
            version: Some(version.into()),
            srcversion: Some(srcversion.into()),
            vermagic: None,
            options: options.into(),
        }
    }

    #[test]
    fn what_was_loaded_comes_from_disk_or_from_its_slot_and_nothing_newer_ever() {
        let module = Module {
            name: "nvidia".into(),
            version: Some("535".into()),
            srcversion: Some("A".into()),
            parameters: Default::default(),
        };
        let same = file("535", "A", "of disk");
        let newer = file("550", "B", "of disk");
        let rebuilt = file("535", "C", "of disk");
        let in_slot = file("535", "A", "of slot");
        let disk = |options: &str| Source::Disk(file("535", "A", options));
        let slot = || Source::Slot(in_slot.clone());
        for (on_disk, in_slot, expected) in [
            (Some(&same), None, vec![disk("of disk")]),
            (Some(&same), Some(&in_slot), vec![disk("of slot"), slot()]),
            (Some(&newer), Some(&in_slot), vec![slot()]),
            (Some(&rebuilt), Some(&in_slot), vec![slot()]),
            (None, Some(&in_slot), vec![slot()]),
            (Some(&newer), None, vec![]),
            (None, None, vec![]),
        ] {
            assert_eq!(sources(&module, on_disk, in_slot), expected, "{on_disk:?} {in_slot:?}");
        }
    }
}
