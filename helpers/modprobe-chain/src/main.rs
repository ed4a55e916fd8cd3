// SPDX-License-Identifier: MIT
//! Loads exactly the modules that were loaded, in the version on disk, and unblocks module loading.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};
use ledger::{NotDone, Object, Step};
use modules::{
    Disk, File, Loaded, Source, Stuck, Unloaded, chain, gate, load, loaded, nodes, successors, unload,
};
use step::{Context, Message, Undo};

/// How long the undo waits for programs that look at the GPU and go.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long all loads together may take (TimeoutStartSec= has to last for the device nodes as well).
const LOADS: Duration = Duration::from_secs(8 * 60);

/// What the undo may take.
const UNDO: Duration = Duration::from_secs(5 * 60);

fn main() -> ExitCode {
    step::main(Step::ModprobeChain, run, undo)
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    let disk = Disk::open(&context.root)?;
    let files = successors(&disk, &run.snapshot.modules)?;
    let until = Instant::now() + LOADS;
    for file in &files {
        context.status(format!("loading {} {}", file.name, file.version.as_deref().unwrap_or("")));
        if is_loaded_already(file, loaded(&context.root, &file.name)?.as_ref())? {
            continue;
        }
        context.ledger.act(Step::ModprobeChain, Object::Module(described(file)), || {
            load(&context.root, &disk, &Source::Disk(file.clone()), until)
                .map_err(|error| not_loaded(error, loaded(&context.root, &file.name)))
        })?;
    }
    for change in nodes::refresh(&context.root, &run.snapshot.nodes)? {
        context.info(change.to_string());
    }
    let undo = Undo::begin(context)?.context("the run was closed meanwhile")?;
    gate::open_of(&undo);
    undo.end("the gate")?;
    if let Some(driver) = files.first() {
        let version = driver.version.as_deref().unwrap_or("unknown");
        let what = format!("loaded {} modules of version {version}", files.len());
        context.event(Message::DriverLoaded, what, &[("NVIDIA_RELOAD_VERSION", version)]);
    }
    Ok(())
}

/// Whether something else has loaded this very file meanwhile.
///
/// # Errors
/// What is loaded is another module, or stuck: this file cannot be loaded.
fn is_loaded_already(file: &File, now: Option<&Loaded>) -> Result<bool> {
    let Some(now) = now else { return Ok(false) };
    if let Some(trouble) = now.trouble() {
        bail!("{trouble}");
    }
    if !file.is(&now.module) {
        bail!(
            "{} is loaded in version {} although it was unloaded",
            file.name,
            now.module.version.as_deref().unwrap_or("unknown")
        );
    }
    Ok(true)
}

/// A load that the kernel refused has left nothing behind; one that is loaded under another version has, and the
/// undo looks for itself.
fn not_loaded(error: Error, now: Result<Option<Loaded>>) -> NotDone {
    match now {
        Ok(None) => NotDone::Unchanged(error),
        _ => NotDone::Unknown(error),
    }
}

fn described(file: &File) -> ledger::Module {
    ledger::Module {
        name: file.name.clone(),
        version: file.version.clone(),
        srcversion: file.srcversion.clone(),
        parameters: Default::default(),
    }
}

/// Unloads what this step loaded, so that the old driver can come back; the gate is rmmod-chain's
/// to open, whose undo comes next.
fn undo(context: &Context) -> Result<()> {
    context.needs(UNDO);
    let Some(undo) = Undo::begin(context)?.filter(|undo| !undo.run.committed) else { return Ok(()) };
    let acts = undo.of_this_boot(undo.run.outstanding(Step::ModprobeChain));
    if acts.is_empty() {
        return undo.end("nothing is to be unloaded");
    }
    let mut names: BTreeSet<String> = Disk::open(&context.root)?.names()?;
    names.extend(undo.run.snapshot.modules.iter().map(|module| module.name.clone()));
    gate::shut(&context.root, &names).context("shut the gate")?;
    // Whatever hangs on the driver has to go, also what this step did not load itself.
    for module in chain(&context.root)? {
        let name = &module.module.name;
        match unload(name, PATIENCE)? {
            Unloaded::Gone => {}
            Unloaded::Busy => bail!("{name} is in use: the new driver stays"),
            Unloaded::Stuck(Stuck { pid, stack }) => {
                bail!(
                    "{name} is stuck on its way out of the kernel (process {pid}); reboot the machine: {stack}"
                )
            }
        }
    }
    acts.iter().for_each(|act| undo.restored(act.id, &act.object));
    undo.end("the new driver is unloaded")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use modules::State;

    use super::*;

    fn file() -> File {
        File {
            name: "nvidia".into(),
            alias: "nvidia".into(),
            path: "/f".into(),
            version: Some("550".into()),
            srcversion: Some("B".into()),
            vermagic: None,
            options: String::new(),
        }
    }

    #[test]
    fn a_failed_load_has_changed_nothing_only_where_nothing_is_loaded() {
        let file = file();
        let here = |state| Loaded { module: described(&file), state, refcount: Some(0), holders: Vec::new() };
        for (now, unchanged) in [
            (Ok(None), true),
            (Ok(Some(here(State::Live))), false),
            (Ok(Some(here(State::Coming))), false),
            (Err(anyhow!("EACCES")), false),
        ] {
            let what = format!("{now:?}");
            let not_done = not_loaded(anyhow!("ENODEV"), now);
            assert_eq!(matches!(not_done, NotDone::Unchanged(_)), unchanged, "{what}");
        }
    }

    #[test]
    fn a_module_is_loaded_once_and_only_from_the_file_on_disk() {
        let file = file();
        let now = |version: &str, srcversion: &str, state| {
            let module = ledger::Module { srcversion: Some(srcversion.into()), ..described(&file) };
            let module = ledger::Module { version: Some(version.into()), ..module };
            Some(Loaded { module, state, refcount: Some(0), holders: Vec::new() })
        };
        for (now, expected) in [
            (None, Ok(false)),
            (now("550", "B", State::Live), Ok(true)),
            (now("535", "A", State::Live), Err("nvidia is loaded in version 535 although it was unloaded")),
            // Of the same version and rebuilt.
            (now("550", "C", State::Live), Err("nvidia is loaded in version 550 although it was unloaded")),
            (now("550", "B", State::Coming), Err("nvidia is on its way into the kernel")),
            (now("550", "B", State::Going), Err("nvidia is on its way out of the kernel")),
        ] {
            match (is_loaded_already(&file, now.as_ref()), expected) {
                (Ok(is), Ok(expected)) => assert_eq!(is, expected, "{now:?}"),
                (Err(error), Err(expected)) => assert!(error.to_string().starts_with(expected), "{error}"),
                (result, _) => panic!("{now:?}: {result:?}"),
            }
        }
    }
}
