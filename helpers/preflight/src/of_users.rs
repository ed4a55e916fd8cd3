// SPDX-License-Identifier: MIT
//! What users can do to a run: any number of processes, and descriptors sent to others.

use std::collections::BTreeMap;

use holders::{Holder, Place, Unexplained, is_of_driver, mps};
use ledger::Step;
use step::Action;

use crate::findings::Findings;

/// More processes of a user than this are counted and not named.
const MOST_NAMED: usize = 12;

/// What is in flight in a socket keeps the driver loaded, and ending the process that has the socket would
/// hit one that never asked for it: a refusal, now, while everything still runs. `what` is in flight there,
/// for all that is known. Whether it is a socket at all.
pub(crate) fn in_socket(what: &str, place: &Place, findings: &mut Findings) -> bool {
    let Place::Socket { pid, comm, fd, in_flight, uid, sender, address, .. } = place else { return false };
    let address = if address.is_empty() { String::new() } else { format!(" ({address})") };
    let from = match sender {
        Some(_) if sender == uid => "the same user".to_owned(),
        Some(sender) => format!("user {sender}"),
        None => "an unknown user (a connection that was not accepted, or a datagram)".to_owned(),
    };
    let descriptors = match in_flight {
        1 => "1 descriptor is".to_owned(),
        many => format!("{many} descriptors are"),
    };
    let user = uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
    findings.refuse(
        format!(
            "{what}: {descriptors} in socket {fd}{address} of process {pid} ({comm}) of user {user}, sent by {from} and not received"
        ),
        match sender {
            Some(sender) if Some(*sender) != *uid => format!(
                "have process {pid} receive them, or restart it; `loginctl terminate-user {sender}` ends the processes of the sender"
            ),
            _ => format!("have process {pid} receive them, or restart it (`kill {pid}` if it may go)"),
        },
    );
    true
}

/// References that no process found has.
pub(crate) fn add_unexplained(unexplained: &Unexplained, findings: &mut Findings) {
    let what = format!("unexplained: {unexplained}");
    let sockets = unexplained.places.iter().filter(|place| in_socket(&what, place, findings)).count();
    let module = &unexplained.module;
    if sockets > 0 {
        return;
    }
    if is_of_driver(module) {
        findings.warn(
            what,
            "`nvidia-reload status` shows the likely places; if they stay, the run ends before anything is unloaded",
        );
        return;
    }
    // Another's module, and no process has it: it would not go.
    findings.refuse(
        format!("{what}: it is in use inside the kernel"),
        format!("stop what uses it, then `rmmod {module}`; `modprobe {module}` after the run"),
    );
}

pub(crate) fn add_plain<'a>(plain: &mut BTreeMap<String, Vec<&'a Holder>>, holder: &'a Holder) {
    plain.entry(user(holder)).or_default().push(holder);
}

/// The processes of a user that cannot be restarted. A user can have any number: the first few are
/// named, and all are in the plan.
pub(crate) fn killed(user: &str, holders: &[&Holder]) -> Vec<Action> {
    let action = |object: String, why: String, pids: Vec<i32>| Action {
        step: Step::KillHolders,
        object,
        what: "terminate".into(),
        why,
        pids,
        comes_back: false,
    };
    let why = |devices: &str| format!("holds {devices}; no container or unit owns it");
    let why_of = |holder: &Holder| match mps(&holder.command) {
        Some(part) => format!("holds {}; an {part} that no unit runs is not restarted", devices(holder)),
        None => why(&devices(holder)),
    };
    let (named, more) = holders.split_at(holders.len().min(MOST_NAMED));
    let mut actions: Vec<Action> =
        named.iter().map(|holder| action(described(holder), why_of(holder), vec![holder.pid])).collect();
    if !more.is_empty() {
        let object = match more.len() {
            1 => format!("1 more process of user {user}"),
            count => format!("{count} more processes of user {user}"),
        };
        let pids = more.iter().map(|holder| holder.pid).collect();
        actions.push(action(object, why("the GPU"), pids));
    }
    actions
}

pub(crate) fn user(holder: &Holder) -> String {
    holder.user.clone().unwrap_or_else(|| holder.uid.to_string())
}

pub(crate) fn processes(pids: &[i32]) -> String {
    match pids {
        [pid] => format!("process {pid}"),
        [pid, more @ ..] => format!("process {pid} and {} more", more.len()),
        [] => String::new(),
    }
}

pub(crate) fn described(holder: &Holder) -> String {
    format!("process {} ({})", holder.pid, holder.command_line())
}

pub(crate) fn devices(holder: &Holder) -> String {
    let mut names: Vec<&str> = Vec::new();
    for device in &holder.devices {
        // One that is open and mapped is there twice.
        if !names.contains(&device.name.as_str()) {
            names.push(&device.name);
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use step::Verdict;

    use super::*;

    #[test]
    fn a_device_that_is_open_and_mapped_is_named_once() {
        // As a CUDA process on an H100 has them.
        let device = |via, (kind, name, module, rdev)| {
            let path = format!("/dev/{name}");
            serde_json::json!({ "rdev": rdev, "kind": kind, "name": name, "module": module, "via": via, "count": 1, "path": path })
        };
        let has = [
            ("gpu", "nvidia0", "nvidia", "195:0"),
            ("ctl", "nvidiactl", "nvidia", "195:255"),
            ("uvm", "nvidia-uvm", "nvidia_uvm", "238:0"),
        ];
        let devices_of: Vec<_> =
            ["fd", "map"].into_iter().flat_map(|via| has.map(|one| device(via, one))).collect();
        let holder = serde_json::json!({
            "pid": 2595, "start_ticks": 2665, "since": null, "uid": 0, "user": "root", "comm": "python3",
            "command": ["python3"], "state": "S", "devices": devices_of, "owner": { "type": "process" },
            "screen": false, "gpu_memory": null
        });
        let holder: Holder = serde_json::from_value(holder).expect("a holder");
        assert_eq!(devices(&holder), "nvidia0, nvidiactl, nvidia-uvm");
    }

    #[test]
    fn a_module_of_others_that_is_in_use_inside_the_kernel_is_a_refusal() {
        for (module, verdict) in [("nvidia", Verdict::Ready), ("nvidia_fs", Verdict::Refused)] {
            let unexplained = Unexplained { module: module.into(), references: 1, places: Vec::new() };
            let mut findings = Findings::default();
            add_unexplained(&unexplained, &mut findings);
            let (found, reasons, warnings) = findings.verdict();
            assert_eq!((found, reasons.len() + warnings.len()), (verdict, 1), "{module}");
            assert!(reasons.iter().all(|reason| reason.remedy.contains("`rmmod nvidia_fs`")), "{reasons:?}");
        }
    }
}
