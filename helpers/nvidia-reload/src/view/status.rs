//! The status, to be read at a glance.

use std::time::SystemTime;

use holders::{
    Container, Device, Engine, Holder, Kind, Module, Owner, Place, Unexplained, Via, taken_by_name,
};
use xid::Class;

use super::table::{Column, table};
use super::text::{ago, bytes, clean, wrap};
use super::{Paint, Style, lease, request};
use crate::gpus::Need;
use crate::status::{Initramfs, RunInShort, State, Status};

/// Where the values begin.
const LABEL: usize = 13;

const COLUMNS: [Column; 6] = [
    Column { title: "OWNER", right: false, least: 14, rank: 2 },
    Column { title: "USER", right: false, least: 8, rank: 0 },
    Column { title: "PID", right: true, least: 0, rank: 0 },
    Column { title: "DEVICES", right: false, least: 10, rank: 1 },
    Column { title: "MEMORY", right: true, least: 0, rank: 0 },
    Column { title: "COMMAND", right: false, least: 0, rank: 0 },
];

/// The whole page.
pub fn status(status: &Status, style: Style, now: SystemTime) -> String {
    let mut page = String::new();
    let mut row = |label: &str, value: String| page.push_str(&entry(label, &value, style));
    row("Driver", driver(status, style));
    if let Some(reason) = &status.driver.out_of_reach {
        row("", style.paint(Paint::Attention, &clean(&reason.what)));
        row("", clean(&reason.remedy));
    } else if let Some(healed) = &status.healed {
        row("", clean(&heals(&healed.version, status.driver.loaded.as_deref())));
    } else if status.driver.mismatch == Some(true) {
        let advice = "programs that start now do not match it; `nvidia-reload reload` loads the one on disk, and until then `nvidia-reload heal` lets programs find the libraries of the loaded one";
        row("", style.paint(Paint::Attention, advice));
    }
    if let Some(put_back) = &status.put_back {
        row("", style.paint(Paint::Attention, &clean(&put_back.sentence())));
        row("", clean(&put_back.remedy));
    }
    if !status.modules.is_empty() {
        row("References", modules(status));
    }
    row("Machine", machine(status, style));
    for (at, value) in gpus(status, style).into_iter().enumerate() {
        row(if at == 0 { "GPUs" } else { "" }, value);
    }
    if status.gate.shut {
        row("Gate", style.paint(Paint::Attention, "shut: the driver cannot be loaded until the run ends"));
    }
    for (at, value) in
        status.request.iter().flat_map(|request| request::values(request, style, now)).enumerate()
    {
        row(if at == 0 { "Upgrade" } else { "" }, value);
    }
    for (at, value) in status.lease.iter().flat_map(|lease| lease::values(lease, style, now)).enumerate() {
        row(if at == 0 { "Fleet lock" } else { "" }, value);
    }
    for value in status.initramfs.iter().map(next_boot) {
        row("Next boot", style.paint(Paint::Attention, &value));
    }
    for (label, run) in [("Open run", &status.runs.open), ("Last run", &status.runs.last)] {
        for (at, value) in run.iter().flat_map(|run| run_in_short(run, style, now)).enumerate() {
            row(if at == 0 { label } else { "" }, value);
        }
    }
    page.push('\n');
    page.push_str(&holders(status, style));
    if !status.consoles.is_empty() || !status.unexplained.is_empty() {
        page.push('\n');
    }
    for console in &status.consoles {
        let value = format!("{} is drawn on {}", console.name, console.framebuffers.join(", "));
        page.push_str(&entry("Console", &clean(&value), style));
    }
    for one in &status.unexplained {
        page.push_str(&entry("Unexplained", &clean(&unexplained(one)), style));
    }
    if !status.unseen.is_empty() {
        page.push_str(&format!("\n{}\n", style.paint(Paint::Strong, "Not seen")));
        for text in &status.unseen {
            page.push_str(&wrap("  - ", &clean(text), style.width));
        }
    }
    page
}

/// A label and its value, which goes on below its start.
fn entry(label: &str, value: &str, style: Style) -> String {
    let entry = wrap(&format!("{label:LABEL$}"), value, style.width);
    // Painted last, since paint has no width.
    entry.replacen(label, &style.paint(Paint::Faint, label), 1)
}

fn unexplained(one: &Unexplained) -> String {
    let text = format!("{one} that nothing found accounts for");
    match one.places.iter().map(place).collect::<Vec<_>>().as_slice() {
        [] => text,
        places => format!("{text}; they may be in: {}", places.join(", ")),
    }
}

fn driver(status: &Status, style: Style) -> String {
    let driver = &status.driver;
    let unknown = "none for this kernel";
    match (&driver.loaded, &driver.on_disk) {
        (Some(loaded), Some(on_disk)) if loaded == on_disk => {
            style.paint(Paint::Good, &format!("{loaded}, loaded and on disk"))
        }
        (Some(loaded), Some(on_disk)) => {
            style.paint(Paint::Attention, &format!("mismatch: {loaded} is loaded, {on_disk} is on disk"))
        }
        (Some(loaded), None) => format!("{loaded} is loaded, on disk there is {unknown}"),
        (None, Some(on_disk)) => format!("not loaded, {on_disk} is on disk"),
        (None, None) => format!("not loaded, on disk there is {unknown}"),
    }
}

/// Whose libraries programs get.
fn heals(version: &str, loaded: Option<&str>) -> String {
    match loaded == Some(version) {
        true => format!("healed: programs that start find the libraries of {version}, until the reload"),
        false => format!(
            "programs find the libraries of {version}, which is not loaded: `nvidia-reload heal --end`"
        ),
    }
}

fn next_boot(initramfs: &Initramfs) -> String {
    let one = |module: &initramfs::Packed| match &module.version {
        Some(version) => format!("{} {version}", module.name),
        None => module.name.clone(),
    };
    let stale = initramfs.stale.iter().map(one).collect::<Vec<_>>().join(", ");
    let remedy = match &initramfs.remedy {
        Some(command) => format!("`{command}` makes it anew"),
        None => "make it anew".to_owned(),
    };
    clean(&format!("would load {stale} from {}: {remedy}", initramfs.archive))
}

fn modules(status: &Status) -> String {
    let one = |module: &holders::Module| {
        let whose = if module.of_driver { "" } else { " (not NVIDIA's driver)" };
        format!("{} {}{whose}", clean(&module.name), module.refcount)
    };
    status.modules.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn machine(status: &Status, style: Style) -> String {
    let (paint, text) = match status.state {
        State::InService => (Paint::Good, "in service"),
        State::Busy => (Paint::Attention, "a run is under way; `nvidia-reload reload` joins it"),
        State::GivingBack => (Paint::Attention, "a run gives back what it took"),
        State::Drained => (Paint::Attention, "drained: workloads are stopped until `nvidia-reload start`"),
        State::Offline => (Paint::Attention, "offline: the driver is out until `nvidia-reload start`"),
        State::Unknown => (Paint::Faint, "systemd does not tell"),
    };
    style.paint(paint, text)
}

/// Those that do not work, each with why; where there is none, how many there are.
fn gpus(status: &Status, style: Style) -> Vec<String> {
    let critical = |gpu: &&Need| gpu.class >= Class::Failed;
    let bad = status.gpus.iter().filter(critical).filter_map(|gpu| gpu.why.first());
    let mut values: Vec<String> = bad.map(|why| style.paint(Paint::Bad, &clean(why))).collect();
    if values.is_empty() && !status.gpus.is_empty() {
        values.push(style.paint(Paint::Good, &format!("{}, no fault is known", status.gpus.len())));
    }
    values
}

/// How it went, then a line for each thing that is to be known about it.
fn run_in_short(run: &RunInShort, style: Style, now: SystemTime) -> Vec<String> {
    use ledger::Outcome::{Degraded, Done, RolledBack};
    let (paint, word) = match run.outcome {
        None => (Paint::Attention, "under way"),
        Some(Done) => (Paint::Good, "done"),
        Some(RolledBack) if run.cancelled => (Paint::Attention, "cancelled and rolled back"),
        Some(RolledBack) => (Paint::Attention, "rolled back"),
        Some(Degraded) => (Paint::Bad, "degraded"),
    };
    let when = if run.outcome.is_none() { run.opened_usec } else { run.last_usec };
    let mut values = vec![format!("{}, {}", style.paint(paint, word), ago(when, now))];
    values.extend(run.failures.iter().map(|(step, reason)| format!("{step} failed: {}", clean(reason))));
    let label = if run.outcome.is_none() { "taken" } else { "not back" };
    values.extend(run.missing.iter().map(|act| format!("{label}: {}", clean(&act.object.to_string()))));
    values.extend(
        run.ended
            .iter()
            .map(|process| format!("ended: process {} ({})", process.pid, clean(&process.command))),
    );
    values
}

fn holders(status: &Status, style: Style) -> String {
    if status.modules.is_empty() {
        return "The driver is not loaded: nobody holds it.\n".to_owned();
    }
    let references: u64 = status.modules.iter().map(Module::excess).sum();
    if status.holders.is_empty() && references > taken_by_name(&status.modules) {
        return "Nobody is seen to hold the driver, but its references show that somebody does.\n".to_owned();
    }
    if status.holders.is_empty() {
        return "Nobody holds the driver.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = status.holders.iter().map(holder).collect();
    table(style, &COLUMNS, &rows)
}

fn holder(holder: &Holder) -> Vec<String> {
    vec![
        owner(&holder.owner),
        holder.user.clone().unwrap_or_else(|| holder.uid.to_string()),
        holder.pid.to_string(),
        devices(&holder.devices),
        holder.gpu_memory.map_or_else(|| "-".to_owned(), bytes),
        holder.command_line(),
    ]
}

/// Who has to be asked, in few words.
pub fn owner(owner: &Owner) -> String {
    match owner {
        Owner::Container(container) => self::container(container),
        Owner::SystemUnit { unit, .. } => unit.clone(),
        Owner::UserUnit { uid, unit } => format!("{unit} of user {uid}"),
        Owner::Session { id, .. } => format!("session {id}"),
        Owner::SlurmStep { job, step } => format!("slurm job {job}.{step}"),
        Owner::Process => "-".to_owned(),
    }
}

fn container(container: &Container) -> String {
    let pod = container.pod.as_ref().map(|pod| match (&pod.namespace, &pod.name) {
        (Some(namespace), Some(name)) => format!("pod {namespace}/{name}"),
        (None, Some(name)) => format!("pod {name}"),
        _ => format!("pod {}", pod.uid),
    });
    if let Some(pod) = pod {
        return pod;
    }
    let engine = match container.engine {
        Engine::Docker => "docker",
        Engine::Podman => "podman",
        Engine::Containerd => "containerd",
        Engine::Crio => "cri-o",
        Engine::Lxc => "lxc",
        Engine::Machine => "machine",
        Engine::Unknown => "container",
    };
    // As long as the engines themselves show it.
    let id: String = container.id.chars().take(12).collect();
    match (&container.unit, container.uid) {
        (Some(unit), _) => format!("{engine} {id} ({unit})"),
        (None, Some(uid)) => format!("{engine} {id} of user {uid}"),
        (None, None) => format!("{engine} {id}"),
    }
}

/// Each device once, the GPUs first and in ranges, with what is unusual about how it is held.
fn devices(devices: &[Device]) -> String {
    let mut gpus: Vec<u32> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for device in devices {
        let number = device.name.strip_prefix("nvidia").and_then(|number| number.parse().ok());
        match (device.kind, number, device.via) {
            // A mapping says nothing new about a device that is open as well.
            (Kind::Gpu, Some(number), Via::Fd | Via::Map) => gpus.push(number),
            _ => names.push(format!("{}{}", short(device), how(device.via))),
        }
    }
    gpus.sort_unstable();
    gpus.dedup();
    let mut words: Vec<String> = ranges(&gpus);
    for name in &names {
        let open =
            name.strip_suffix(how(Via::Map)).is_some_and(|name| names.iter().any(|other| other == name));
        if !open && !words.contains(name) {
            words.push(name.clone());
        }
    }
    words.join(" ")
}

fn how(via: Via) -> &'static str {
    match via {
        Via::Fd => "",
        Via::ThreadFd => "(thread)",
        Via::Map => "(map)",
        Via::InFlight => "(in flight)",
    }
}

/// The device's name without what is the same for all.
fn short(device: &Device) -> &str {
    match device.kind {
        Kind::Ctl => "ctl",
        Kind::Caps => "caps",
        Kind::Imex => "imex",
        _ => device.name.strip_prefix("nvidia-").unwrap_or(&device.name),
    }
}

/// `nvidia0-3 nvidia6` for 0, 1, 2, 3 and 6.
fn ranges(gpus: &[u32]) -> Vec<String> {
    gpus.chunk_by(|one, next| next - one == 1)
        .map(|range| match range {
            [first, .., last] => format!("nvidia{first}-{last}"),
            [only] => format!("nvidia{only}"),
            [] => String::new(),
        })
        .collect()
}

fn place(place: &Place) -> String {
    match place {
        Place::Socket { pid, comm, fd, in_flight, .. } => {
            format!("{in_flight} in flight to socket {fd} of process {pid} ({comm})")
        }
        Place::IoUring { pid, comm, fd, files, .. } => {
            format!("{files} registered with io_uring {fd} of process {pid} ({comm})")
        }
        Place::DmaBuf { pid, comm, fd, .. } => format!("dma-buf {fd} of process {pid} ({comm})"),
        Place::Kernel { what } => what.clone(),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
