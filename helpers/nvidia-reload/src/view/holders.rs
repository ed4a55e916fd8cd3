// SPDX-License-Identifier: MIT
//! What holds the driver: a line for each owner, or with every detail for each process.

use std::collections::BTreeSet;

use holders::{
    Container, Device, Engine, Holder, Kind, Module, Owner, Place, Unexplained, Via, taken_by_name,
};

use super::Style;
use super::table::{Column, table};
use super::text::{bytes, count};
use crate::status::Status;

const OWNERS: [Column; 6] = [
    Column { title: "USED BY", right: false, least: 16, rank: 1 },
    Column { title: "USER", right: false, least: 8, rank: 0 },
    Column { title: "GPU", right: false, least: 5, rank: 2 },
    Column { title: "MEMORY", right: true, least: 0, rank: 0 },
    Column { title: "PID", right: true, least: 0, rank: 0 },
    Column { title: "COMMAND", right: false, least: 0, rank: 0 },
];

const PROCESSES: [Column; 6] = [
    Column { title: "USED BY", right: false, least: 14, rank: 2 },
    Column { title: "USER", right: false, least: 8, rank: 0 },
    Column { title: "PID", right: true, least: 0, rank: 0 },
    Column { title: "DEVICES", right: false, least: 10, rank: 1 },
    Column { title: "MEMORY", right: true, least: 0, rank: 0 },
    Column { title: "COMMAND", right: false, least: 0, rank: 0 },
];

/// The table, or a sentence where there is nothing to list.
pub fn holders(status: &Status, style: Style) -> String {
    if status.modules.is_empty() {
        return match status.driver.present || status.driver.loaded.is_some() {
            true => "It is not known what holds the driver: its modules cannot be read.\n".to_owned(),
            false => "The driver is not loaded: nothing holds it.\n".to_owned(),
        };
    }
    let references: u64 = status.modules.iter().map(Module::excess).sum();
    if status.holders.is_empty() && references > taken_by_name(&status.modules) {
        return "No holder of the driver was found, but its modules are still referenced.\n".to_owned();
    }
    if status.holders.is_empty() {
        return "Nothing holds the driver.\n".to_owned();
    }
    if style.verbose {
        let rows: Vec<Vec<String>> = status.holders.iter().map(|holder| process(status, holder)).collect();
        return table(style, &PROCESSES, &rows);
    }
    let mut owners: Vec<Vec<&Holder>> = Vec::new();
    for holder in &status.holders {
        // A plain process is its own.
        let is_same = |group: &&mut Vec<&Holder>| {
            group[0].owner == holder.owner && holder.owner != Owner::Process && group[0].uid == holder.uid
        };
        match owners.iter_mut().find(is_same) {
            Some(group) => group.push(holder),
            None => owners.push(vec![holder]),
        }
    }
    let rows: Vec<Vec<String>> = owners.iter().map(|group| one(status, group)).collect();
    table(style, &OWNERS, &rows)
}

fn one(status: &Status, group: &[&Holder]) -> Vec<String> {
    let first = group[0];
    let memory: Option<u64> = group.iter().filter_map(|holder| holder.gpu_memory).reduce(u64::saturating_add);
    let more = match group.len() {
        1 => String::new(),
        all => format!("{}: ", count(all, "process", "processes")),
    };
    vec![
        owner(status, &first.owner),
        user(status, first),
        gpus(status, group),
        memory.map_or_else(|| "-".to_owned(), bytes),
        first.pid.to_string(),
        format!("{more}{}", first.command_line()),
    ]
}

fn process(status: &Status, holder: &Holder) -> Vec<String> {
    vec![
        owner(status, &holder.owner),
        user(status, holder),
        holder.pid.to_string(),
        devices(&holder.devices),
        holder.gpu_memory.map_or_else(|| "-".to_owned(), bytes),
        holder.command_line(),
    ]
}

fn user(status: &Status, holder: &Holder) -> String {
    holder.user.clone().unwrap_or_else(|| status.users.name(holder.uid))
}

/// The GPUs that are held, as NVML numbers them; their nodes where it was not asked.
fn gpus(status: &Status, group: &[&Holder]) -> String {
    let devices = group.iter().flat_map(|holder| &holder.devices).filter(|device| device.kind == Kind::Gpu);
    let minors: BTreeSet<u32> =
        devices.filter_map(|device| device.name.strip_prefix("nvidia")?.parse().ok()).collect();
    let index = |minor: &u32| {
        let known = status.gpus.iter().find(|gpu| gpu.detail.minor == Some(*minor));
        known.and_then(|gpu| gpu.detail.index)
    };
    let indices: Option<BTreeSet<u32>> = minors.iter().map(index).collect();
    match indices {
        _ if minors.is_empty() => "-".to_owned(),
        Some(indices) => ranges("", &indices.into_iter().collect::<Vec<_>>()).join(","),
        None => ranges("nvidia", &minors.into_iter().collect::<Vec<_>>()).join(","),
    }
}

/// What has to be asked, in few words.
pub fn owner(status: &Status, owner: &Owner) -> String {
    match owner {
        Owner::Container(container) => self::container(status, container),
        Owner::SystemUnit { unit, .. } => unit.clone(),
        Owner::UserUnit { uid, unit } => format!("{unit} of user {}", status.users.name(*uid)),
        Owner::Session { id, .. } => format!("session {id}"),
        Owner::SlurmStep { job, step } => format!("slurm job {job}.{step}"),
        Owner::Process => "(process)".to_owned(),
    }
}

fn container(status: &Status, container: &Container) -> String {
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
    // Else the id, as long as the engines themselves show it.
    let id: String = container.id.chars().take(12).collect();
    let name = status.container_names.get(&container.id).cloned().unwrap_or(id);
    match (&container.unit, container.uid) {
        (Some(unit), _) => format!("{engine} {name} ({unit})"),
        (None, Some(uid)) => format!("{engine} {name} of user {}", status.users.name(uid)),
        (None, None) => format!("{engine} {name}"),
    }
}

/// What was not found, and where it may be.
pub fn unexplained(one: &Unexplained) -> String {
    match one.places.iter().map(place).collect::<Vec<_>>().as_slice() {
        [] => format!("{one}"),
        places => format!("{one}, perhaps in: {}", places.join(", ")),
    }
}

/// Each device once, the GPUs first and in ranges, with what is unusual about how it is held.
pub fn devices(devices: &[Device]) -> String {
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
    let mut words: Vec<String> = ranges("nvidia", &gpus);
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
fn ranges(prefix: &str, gpus: &[u32]) -> Vec<String> {
    gpus.chunk_by(|one, next| next - one == 1)
        .map(|range| match range {
            [first, .., last] => format!("{prefix}{first}-{last}"),
            [only] => format!("{prefix}{only}"),
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
#[path = "holders_tests.rs"]
mod tests;
