//! The way back: what was unloaded is loaded again, in the version that the run's state asks for, and
//! what was set on the GPUs is set again.

use anyhow::{Result, bail};
use ledger::{Act, Module, Object, Run, Step};
use modules::{Disk, File, Source, gate, load, loaded, nodes};
use slots::{Slot, find, slots};
use step::{Context, undo_steps};

/// Loads again what the ledger says was unloaded, then opens the gate, whatever happened before.
pub(crate) fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else {
        return gate::open(&context.root);
    };
    let acts = run.outstanding(Step::RmmodChain);
    let result = modules_back(context, &run, &acts);
    // Even a driver that could not be brought back must not be kept out.
    gate::open(&context.root)?;
    for act in acts.iter().filter(|act| matches!(act.object, Object::Gate { .. })) {
        context.ledger.undone(act.id)?;
    }
    result?;
    // The driver is back without what was set: the helper that speaks NVML sets it again, before the
    // workloads return. After a good run restore has done so.
    let set = context.ledger.read()?.is_some_and(|run| !run.outstanding(Step::Settings).is_empty());
    if set && let [failed] = undo_steps(&[Step::Settings]).as_slice() {
        bail!("{failed}");
    }
    Ok(())
}

fn modules_back(context: &Context, run: &Run, acts: &[Act]) -> Result<()> {
    if run.committed {
        return Ok(());
    }
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
        return gone.iter().try_for_each(|(id, _)| context.ledger.undone(*id));
    }
    let disk = Disk::open(&context.root)?;
    let kept = whole(context, slots(&context.root)?);
    let sources = choose(context, run, &disk, &kept, &gone)?;
    let mut failed = Vec::new();
    for ((id, module), source) in gone.iter().zip(sources) {
        match bring(context, &disk, module, &source) {
            Ok(()) if source.file().is(module) => context.ledger.undone(*id)?,
            Ok(()) if !run.was_given_up() => context.ledger.undone(*id)?,
            Ok(()) => context.ledger.lost(
                *id,
                format!(
                    "version {} is neither on disk nor kept; {} serves instead",
                    text(module.version.as_deref()),
                    text(source.file().version.as_deref())
                ),
            )?,
            Err(error) => {
                context.ledger.undo_failed(*id, format!("{error:#}"))?;
                failed.push(format!("{error:#}"));
                // What comes later needs what could not be loaded.
                break;
            }
        }
    }
    for change in nodes::refresh(&context.root, &run.snapshot.nodes)? {
        context.info(change.to_string());
    }
    if !failed.is_empty() {
        bail!("the driver is not back: {}", failed.join("; "));
    }
    context.info("the driver is loaded again");
    Ok(())
}

/// The file for each of `gone`: all of one version, since no two versions work together.
fn choose(
    context: &Context,
    run: &Run,
    disk: &Disk,
    kept: &[Slot],
    gone: &[(u64, &Module)],
) -> Result<Vec<Source>> {
    let old = |module: &Module| -> Result<Option<Source>> {
        let kept = kept.iter().find_map(|slot| slot.find(module));
        Ok(match find(disk, &module.name)?.filter(|file| file.is(module)) {
            // With the options that it served with: those on disk may be what the new driver failed on.
            Some(file) => {
                let options = kept.map_or_else(|| file.options.clone(), |kept| kept.options);
                if options != file.options {
                    context.warn(format!(
                        "{} is loaded with the options {options:?} that it had; modprobe.d has {:?} now",
                        file.name, file.options
                    ));
                }
                Some(Source::Disk(File { options, ..file }))
            }
            None => kept.map(Source::Slot),
        })
    };
    let new = |module: &Module| -> Result<Option<Source>> { Ok(find(disk, &module.name)?.map(Source::Disk)) };
    let all = |one: &dyn Fn(&Module) -> Result<Option<Source>>| -> Result<Option<Vec<Source>>> {
        gone.iter().map(|(_, module)| one(module)).collect()
    };
    let old = all(&old)?;
    let new = all(&new)?;
    // While part of the old driver is still loaded, nothing but its own version fits it.
    let partial = loaded(&context.root, modules::DRIVER)?.is_some();
    let (first, second) =
        if !run.was_given_up() && !partial { (new, old) } else { (old, new.filter(|_| !partial)) };
    match first.or(second) {
        Some(sources) => Ok(sources),
        None => bail!(
            "no file for {} in version {}, neither on disk nor kept; install that version again and run `nvidia-reload rollback`",
            gone.iter().map(|(_, module)| module.name.as_str()).collect::<Vec<_>>().join(", "),
            text(gone[0].1.version.as_deref())
        ),
    }
}

/// The slots whose modules are whole: a spoiled file is no way back, and the kernel need not tell.
fn whole(context: &Context, mut kept: Vec<Slot>) -> Vec<Slot> {
    kept.retain(|slot| {
        let spoiled = slot.spoiled_modules();
        if !spoiled.is_empty() {
            let version = &slot.manifest.version;
            context.warn(format!("the kept driver {version} is no way back: {}", spoiled.join("; ")));
        }
        spoiled.is_empty()
    });
    kept
}

fn bring(context: &Context, disk: &Disk, module: &Module, source: &Source) -> Result<()> {
    match loaded(&context.root, &module.name)? {
        // Its unload was announced and never happened, or somebody was faster.
        Some(now) if source.file().is(&now.module) => Ok(()),
        Some(now) => bail!(
            "{} serves in version {} and cannot be replaced",
            module.name,
            text(now.module.version.as_deref())
        ),
        None => load(&context.root, disk, source),
    }
}

fn text(version: Option<&str>) -> &str {
    version.unwrap_or("unknown")
}
