// SPDX-License-Identifier: MIT
//! Unloads the driver, and loads the previous one if the run is rolled back.

#![forbid(unsafe_code)]

mod back;
mod kind;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use ledger::{Gpu, Intent, NotDone, Object, Run, Settings, Step};
use modules::coherent::{ANSWER, Onlined, gpu_memory, is_left_behind, is_used};
use modules::{Disk, Loaded, State, Stuck, Unloaded, chain, gate, gpus, is_hidden, on_bus, unload};
use step::{Context, Root};

/// How long the driver may take until the memory of its GPUs is no part of the system's any more: hundreds of
/// gigabytes, of which the kernel moves what lies there.
const OFFLINE: Duration = Duration::from_secs(120);

/// How long a module may be in use before that counts as a failure. The holders are gone by
/// now; what is left are programs that look at it and go.
const PATIENCE: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    step::main(Step::RmmodChain, run, back::undo)
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    kind::admit(&run)?;
    let disk = Disk::open(&context.root)?;
    let goes = |module: &Loaded| !(run.snapshot.reset && module.module.name == modules::DRIVER);
    let mut loaded = chain(&context.root)?;
    loaded.retain(goes);
    let stay = if run.snapshot.chosen.is_empty() { Vec::new() } else { used(&loaded) };
    if !stay.is_empty() {
        loaded.retain(|module| !stay.contains(&module.module.name));
        context.info(format!("{} stay loaded: GPUs that are not reset use them", stay.join(", ")));
    }
    if loaded.is_empty() {
        context.info("nothing to unload");
    }
    shut_gate(context, &disk, &loaded)?;
    for gpu in gpus(&context.root)? {
        // nvidia_drm would wait for such a GPU for ever.
        if on_bus(&context.root, &gpu)? == Some(false) {
            bail!("GPU {gpu} is off the bus: the driver cannot be unloaded; reboot the machine");
        }
    }
    let (hidden, listed): (Vec<&Loaded>, Vec<&Loaded>) =
        loaded.iter().partition(|module| is_hidden(&loaded, module));
    // Until these are gone, the driver's count does not tell whether anything else uses it.
    take(context, &hidden)?;
    if run.snapshot.chosen.is_empty() {
        quiet(context)?;
    }
    if !run.snapshot.reset {
        offline(&context.root, OFFLINE)?;
    }
    let settings = note_settings(context, &run)?;
    take(context, &listed)?;
    let left = chain(&context.root)?;
    if let Some(module) = left.iter().find(|module| goes(module) && !stay.contains(&module.module.name)) {
        bail!("{} is loaded again although the gate is shut", module.module.name);
    }
    settings.into_iter().try_for_each(Intent::done)?;
    let names: Vec<&str> = loaded.iter().map(|module| module.module.name.as_str()).collect();
    context.info(format!("unloaded {}", names.join(", ")));
    Ok(())
}

/// Unloads `modules`, in their order.
fn take(context: &Context, modules: &[&Loaded]) -> Result<()> {
    for module in modules {
        let name = &module.module.name;
        context.status(format!("unloading {name}"));
        context.ledger.act(Step::RmmodChain, Object::Module(module.module.clone()), || {
            is_gone(name, unload(name, PATIENCE), || in_use(context, name))
        })?;
    }
    Ok(())
}

/// Whether the module `name` is gone. What is in use, or what the kernel refused, is as it was; what is stuck is
/// neither gone nor there: what the kernel is doing only a reboot ends.
fn is_gone(
    name: &str,
    unloaded: Result<Unloaded>,
    in_use: impl FnOnce() -> Result<String>,
) -> Result<(), NotDone> {
    match unloaded.map_err(NotDone::Unchanged)? {
        Unloaded::Gone => Ok(()),
        Unloaded::Busy => Err(NotDone::Unchanged(in_use().map_or_else(|error| error, |what| anyhow!(what)))),
        Unloaded::Stuck(Stuck { pid, stack }) => Err(NotDone::Unknown(anyhow!(
            "{name} is stuck on its way out of the kernel (process {pid}); reboot the machine: {stack}"
        ))),
    }
}

fn shut_gate(context: &Context, disk: &Disk, loaded: &[Loaded]) -> Result<()> {
    let mut names: BTreeSet<String> = disk.names()?;
    for module in loaded {
        names.insert(module.module.name.clone());
        // One that cannot be read is among the names by that of its file.
        names.extend(slots::find(disk, &module.module.name)?.map(|file| file.alias));
    }
    names.insert(modules::DRIVER.to_owned());
    context.ledger.act(Step::RmmodChain, Object::Gate { path: gate::FILE.to_owned() }, || {
        Ok(gate::shut(&context.root, &names).context("shut the gate")?)
    })
}

/// Writes what is set on the GPUs and goes with the driver; NVML gave it to preflight. Returns the acts.
fn note_settings<'a>(context: &'a Context, run: &Run) -> Result<Vec<Intent<'a>>> {
    let mut acts = Vec::new();
    let chosen = &run.snapshot.chosen;
    let goes = |gpu: &Gpu| chosen.is_empty() || chosen.iter().any(|chosen| chosen.pci == gpu.pci);
    for gpu in run.snapshot.seen.iter().filter(|gpu| !gpu.settings.is_empty() && goes(gpu)) {
        let (pci, uuid) = (gpu.pci.clone(), gpu.uuid.clone());
        let object = Object::Settings(Settings { pci, uuid, settings: gpu.settings.clone() });
        // A start in the middle of the rollback runs this again.
        if run.outstanding(Step::Settings).iter().all(|act| act.object != object) {
            acts.push(context.ledger.intent(Step::Settings, object)?);
        }
    }
    Ok(acts)
}

/// The modules of `loaded`, which has dependents first, that somebody uses, with what those stand on.
fn used(loaded: &[Loaded]) -> Vec<String> {
    let mut used: Vec<String> = Vec::new();
    for module in loaded {
        if module.users() > 0 || module.holders.iter().any(|holder| used.contains(holder)) {
            used.push(module.module.name.clone());
        }
    }
    used
}

/// Waits until no process has the driver open, so that no part of it is unloaded when another cannot be.
fn quiet(context: &Context) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = chain(&context.root)?;
        if let Some(module) = now.iter().find(|module| module.state != State::Live) {
            bail!("{} is not live but {:?}: reboot the machine", module.module.name, module.state);
        }
        let Some(busy) = now.iter().find(|module| module.users() > 0) else { return Ok(()) };
        if Instant::now() > until {
            bail!("{}", in_use(context, &busy.module.name)?);
        }
        // The kernel does not report when a reference goes: ask again.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the memory of each GPU is no part of the system's any more. The driver sees to that when the last user
/// has closed the GPU; if it fails, an unload would take the driver away from under memory that the kernel uses.
fn offline(root: &Root, patience: Duration) -> Result<()> {
    let until = Instant::now() + patience;
    loop {
        let gpus = gpu_memory(root, ANSWER)?;
        let failed = gpus.iter().find(|gpu| gpu.is == Onlined::OfflineFailed);
        if failed.is_some() || is_left_behind(root, &gpus)? {
            let what = failed.map_or_else(|| "memory of a GPU".to_owned(), ToString::to_string);
            bail!("{what} could not be taken offline, and the kernel still uses it: reboot the machine");
        }
        let mut online = gpus.iter().filter(|gpu| !gpu.is_offline());
        // Of a GPU with MIG instances the driver does not say it; what the kernel has tells.
        let Some(online) = (match is_used(root)? {
            true => online.next(),
            false => online.find(|gpu| gpu.is != Onlined::NotTold),
        }) else {
            return Ok(());
        };
        if online.is == Onlined::NoAnswer {
            bail!("the driver does not report whether {online} is offline: `journalctl -k` may show why");
        }
        if Instant::now() > until {
            bail!(
                "{online} is still online {} seconds after the last use of the GPU: the driver is not unloaded",
                patience.as_secs()
            );
        }
        // The driver does not report it.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn in_use(context: &Context, name: &str) -> Result<String> {
    Ok(match modules::loaded(&context.root, name)? {
        Some(module) => format!(
            "{name} is in use: {} references, of which {} by other modules; `nvidia-reload status` shows by whom",
            module.refcount.unwrap_or_default(),
            module.holders.len()
        ),
        None => format!("{name} was in use and is gone now"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unload_that_the_kernel_refused_has_changed_nothing_and_one_that_is_stuck_may_have() {
        let stuck = || Stuck { pid: 7, stack: "nv_exit".into() };
        let unknown = Some((true, "nvidia is stuck on its way out of the kernel (process 7)"));
        for (unloaded, expected) in [
            (Ok(Unloaded::Gone), None),
            (Ok(Unloaded::Busy), Some((false, "by two"))),
            (Ok(Unloaded::Stuck(stuck())), unknown),
            (Err(anyhow!("EPERM")), Some((false, "EPERM"))),
        ] {
            let what = format!("{unloaded:?}");
            match (is_gone("nvidia", unloaded, || Ok("by two".into())), expected) {
                (Ok(()), None) => {}
                (Err(NotDone::Unchanged(error)), Some((false, text)))
                | (Err(NotDone::Unknown(error)), Some((true, text))) => {
                    assert!(error.to_string().starts_with(text), "{what}: {error}");
                }
                (result, _) => panic!("{what}: {result:?}"),
            }
        }
    }

    #[test]
    fn nothing_is_unloaded_from_under_memory_that_the_kernel_uses() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        offline(&root, Duration::ZERO).expect("no GPU has such memory");
        let gpu = root.path("/proc/driver/nvidia/gpus/0009:01:00.0");
        std::fs::create_dir_all(&gpu).expect("creates");
        let set = |status: &str| {
            let text = format!("Node:      1\nStatus:    {status}\n");
            std::fs::write(gpu.join("numa_status"), text).expect("writes");
        };
        let refused = || offline(&root, Duration::ZERO).expect_err("is not offline").to_string();
        set("online");
        assert!(refused().contains("GPU 0009:01:00.0 (NUMA node 1) is still online"), "{}", refused());
        set("offline_failed");
        assert!(refused().contains("reboot the machine"), "{}", refused());
        set("offline");
        offline(&root, Duration::ZERO).expect("is offline");
        std::fs::write(root.path("/proc/iomem"), "20-2f : System RAM (NVIDIA)\n").expect("writes");
        assert!(refused().contains("reboot the machine"), "{}", refused());
        // Where the driver answers EIO, as this file does, the kernel's list decides.
        std::fs::remove_file(gpu.join("numa_status")).expect("removes");
        std::os::unix::fs::symlink("/proc/self/mem", gpu.join("numa_status")).expect("links");
        assert!(refused().contains("is still online"), "{}", refused());
        std::fs::remove_file(root.path("/proc/iomem")).expect("removes");
        offline(&root, Duration::ZERO).expect("the kernel has none of it");
        std::fs::remove_file(gpu.join("numa_status")).expect("removes");
        set("offline_in_progress");
        let soon = std::thread::scope(|scope| {
            let waits = scope.spawn(|| offline(&root, Duration::from_secs(30)));
            // Replaced as a whole, as the kernel shows it.
            std::fs::write(gpu.join("new"), "Node:      1\nStatus:    offline\n").expect("writes");
            std::fs::rename(gpu.join("new"), gpu.join("numa_status")).expect("replaces");
            waits.join().expect("does not panic")
        });
        soon.expect("the driver was done in time");
    }

    #[test]
    fn what_other_gpus_use_stays_loaded_with_what_it_stands_on() {
        // Name, references, dependents; those that use others first.
        let module = |(name, refcount, holders): (&str, i64, &[&str])| Loaded {
            module: ledger::Module {
                name: name.into(),
                version: None,
                srcversion: None,
                parameters: Default::default(),
            },
            state: State::Live,
            refcount: Some(refcount),
            holders: holders.iter().map(ToString::to_string).collect(),
        };
        let on_uvm = ("nvidia", 1, &["nvidia_uvm"][..]);
        for (loaded, expected) in [
            (vec![("nvidia_uvm", 0, &[][..]), on_uvm], vec![]),
            (vec![("nvidia_uvm", 2, &[]), on_uvm], vec!["nvidia_uvm", "nvidia"]),
            (vec![("nvidia_uvm", 0, &[]), ("nvidia", 4, &["nvidia_uvm"])], vec!["nvidia"]),
            (
                vec![
                    ("nvidia_drm", 1, &[]),
                    ("nvidia_modeset", 1, &["nvidia_drm"]),
                    ("nvidia_uvm", 0, &[]),
                    ("nvidia", 2, &["nvidia_modeset", "nvidia_uvm"]),
                ],
                vec!["nvidia_drm", "nvidia_modeset", "nvidia"],
            ),
        ] {
            let all: Vec<Loaded> = loaded.iter().copied().map(module).collect();
            assert_eq!(used(&all), expected, "{loaded:?}");
        }
    }
}
