//! The undo: what was unloaded is loaded again, in the version that it had, and what was set on the GPUs is
//! set again. Never anything newer: that is modprobe-chain's, and verified.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ledger::{Act, Module, Object, Run, Step};
use modules::{Disk, File, Source, gate, load, loaded, nodes};
use slots::{Slot, find, slots};
use step::{Context, undo_steps};

use crate::kind;

/// How long all loads together may take; GPUs are started one after the other while the module loads.
const LOADS: Duration = Duration::from_secs(5 * 60);

/// The same, and what the settings may take.
const ALL: Duration = Duration::from_secs(8 * 60);

/// Loads again what the ledger says was unloaded, and opens the gate, whatever happened before.
pub(crate) fn undo(context: &Context) -> Result<()> {
    context.needs(ALL);
    if let Ok(Some(run)) = context.ledger.read()
        && kind::is_beside(&run)
    {
        return Ok(());
    }
    let loaded = context.ledger.read().and_then(|run| match run {
        Some(run) => modules_back(context, &run),
        None => Ok(()),
    });
    // Also where the ledger cannot be read, or the driver could not be loaded: it must not be kept out.
    gate::open(&context.root)?;
    let run = context.ledger.read()?;
    let mut noted = Ok(());
    for act in run.iter().flat_map(|run| run.outstanding(Step::RmmodChain)).filter(is_gate) {
        noted = noted.and(context.ledger.undone(act.id));
    }
    loaded?;
    // The driver has lost what was set on the GPUs: the helper that speaks NVML sets it again, before the
    // workloads are started. After a good run restore has done so.
    let set = run.is_some_and(|run| !run.outstanding(Step::Settings).is_empty());
    if set && let [failed] = undo_steps(context, &[Step::Settings]).as_slice() {
        bail!("{failed}");
    }
    // Last: a ledger that cannot be written keeps nothing from being set.
    noted
}

fn is_gate(act: &Act) -> bool {
    matches!(act.object, Object::Gate { .. })
}

fn modules_back(context: &Context, run: &Run) -> Result<()> {
    if run.committed {
        return Ok(());
    }
    let acts = run.outstanding(Step::RmmodChain);
    let gone: Vec<(u64, &Module)> = acts
        .iter()
        .filter_map(|act| match &act.object {
            Object::Module(module) => Some((act.id, module)),
            _ => None,
        })
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    if run.boot != context.ledger.boot() {
        // The modules of the machine as it was went with that boot.
        return context.ledger.undone_each(gone.iter().map(|(id, _)| *id));
    }
    context.status("loading the driver that was loaded before");
    let disk = Disk::open(&context.root)?;
    let kept = whole(context, slots(&context.root)?);
    let until = Instant::now() + LOADS;
    // What the ledger does not take keeps no module out.
    let mut unwritten = Ok(());
    let mut missing = None;
    for (id, module) in gone {
        let written = match bring(context, &disk, &kept, module, until) {
            Ok(()) => context.ledger.undone(id),
            Err(error) => {
                let error = format!("{error:#}");
                let written = context.ledger.undo_failed(id, &error);
                // What comes later needs what could not be loaded.
                missing = Some((error, written));
                break;
            }
        };
        unwritten = unwritten.and(written);
    }
    let refreshed = nodes::refresh(&context.root, &run.snapshot.nodes);
    for change in refreshed.iter().flatten() {
        context.info(change.to_string());
    }
    if let Some((error, written)) = missing {
        if let Err(error) = written {
            context.warn(format!("{error:#}"));
        }
        bail!("the driver is not loaded again: {error}");
    }
    unwritten.and(refreshed.map(drop))?;
    context.info("the driver is loaded again");
    Ok(())
}

/// Loads `module` again, unless it was never unloaded.
fn bring(context: &Context, disk: &Disk, kept: &[Slot], module: &Module, until: Instant) -> Result<()> {
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
    let in_slot = kept.iter().find_map(|slot| slot.find(module));
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
    let options = |file: &File| in_slot.map_or_else(|| file.options.clone(), |kept| kept.options.clone());
    let from_disk = on_disk
        .filter(|file| file.is(module))
        .map(|file| Source::Disk(File { options: options(file), ..file.clone() }));
    from_disk.into_iter().chain(in_slot.cloned().map(Source::Slot)).collect()
}

/// The slots whose modules are whole: the kernel need not notice a corrupt file.
fn whole(context: &Context, mut kept: Vec<Slot>) -> Vec<Slot> {
    kept.retain(|slot| {
        let spoiled = slot.spoiled_modules();
        if !spoiled.is_empty() {
            let version = &slot.manifest.version;
            context.warn(format!("the slot of driver {version} cannot be used: {}", spoiled.join("; ")));
        }
        spoiled.is_empty()
    });
    kept
}

fn text(version: &Option<String>) -> &str {
    version.as_deref().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let kept = file("535", "A", "of slot");
        let disk = |options: &str| Source::Disk(file("535", "A", options));
        let slot = || Source::Slot(kept.clone());
        for (on_disk, in_slot, expected) in [
            (Some(&same), None, vec![disk("of disk")]),
            (Some(&same), Some(&kept), vec![disk("of slot"), slot()]),
            (Some(&newer), Some(&kept), vec![slot()]),
            (Some(&rebuilt), Some(&kept), vec![slot()]),
            (None, Some(&kept), vec![slot()]),
            (Some(&newer), None, vec![]),
            (None, None, vec![]),
        ] {
            assert_eq!(sources(&module, on_disk, in_slot), expected, "{on_disk:?} {in_slot:?}");
        }
    }
}
