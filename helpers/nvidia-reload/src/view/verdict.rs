// SPDX-License-Identifier: MIT
//! How the machine is, in one line, and what to type next.

use xid::Class;

use super::text::{clean, wrap};
use super::{Paint, Style};
use crate::status::{Gpu, State, Status};

/// The verdict alone.
pub fn verdict(status: &Status, style: Style) -> String {
    let (paint, text) = judged(status);
    // Wrapped before it is painted: paint has no width.
    wrap("", &clean(&text), style.width)
        .lines()
        .map(|line| format!("{}\n", style.paint(paint, line)))
        .collect()
}

/// How it is, in one line: the worst first.
fn judged(status: &Status) -> (Paint, String) {
    let driver = &status.driver;
    if let Some(work) = &status.at_work {
        let says = if work.says.is_empty() { String::new() } else { format!(" ({})", work.says) };
        return (Paint::Attention, format!("A run is under way: {}{says}.", work.step));
    }
    match status.state {
        State::Busy => return (Paint::Attention, "A run is under way.".to_owned()),
        State::Restoring => return (Paint::Attention, "A run restores what it stopped.".to_owned()),
        State::Offline => {
            return (
                Paint::Attention,
                "Offline: workloads are stopped and the driver is unloaded.".to_owned(),
            );
        }
        State::Drained => {
            return (Paint::Attention, "Drained: workloads are stopped, the driver is loaded.".to_owned());
        }
        State::InService | State::Unknown => {}
    }
    if status.runs.open.is_some() {
        return (Paint::Bad, "A run was interrupted: not everything that it stopped is restored.".to_owned());
    }
    let name = match &driver.loaded {
        Some(loaded) => format!("NVIDIA driver {loaded}"),
        None if driver.present => "NVIDIA driver".to_owned(),
        None => {
            let then = match &driver.on_disk {
                Some(on_disk) => format!("{on_disk} is installed."),
                None => "none is installed for this kernel.".to_owned(),
            };
            return (Paint::Attention, format!("The NVIDIA driver is not loaded; {then}"));
        }
    };
    let bad: Vec<&Gpu> = status.gpus.iter().filter(|gpu| gpu.need.class >= Class::Failed).collect();
    let worst = bad.iter().map(|gpu| gpu.need.class).max();
    let (all, some) = (status.gpus.len(), bad.len());
    match worst {
        Some(Class::Reboot) => return (Paint::Bad, format!("{name}: {some} of {all} GPUs need a reboot.")),
        Some(Class::Reset) => return (Paint::Bad, format!("{name}: {some} of {all} GPUs need a reset.")),
        Some(_) => return (Paint::Bad, format!("{name}: {some} of {all} GPUs do not work.")),
        None => {}
    }
    if driver.out_of_reach.is_some() && driver.loaded.is_some() && driver.loaded == driver.library {
        return (Paint::Attention, format!("{name}: libraries match; no reload is possible now."));
    }
    if driver.out_of_reach.is_some() {
        return (Paint::Attention, format!("{name}: no reload can help now."));
    }
    let missing = status.runs.last.as_ref().map_or(0, |run| run.missing.len());
    match (driver.mismatch, &driver.on_disk) {
        (Some(false), _) if missing > 0 => {
            (Paint::Attention, format!("{name}: works, but the last run finished degraded."))
        }
        (Some(true), Some(on_disk)) => {
            (Paint::Attention, format!("{name}: mismatch, {on_disk} is installed; a reload is needed."))
        }
        (Some(false), _) if all == 0 => (Paint::Good, format!("{name}: loaded and installed version match.")),
        (Some(false), _) => (Paint::Good, format!("{name}: no fault is known of {}.", number(all))),
        _ => (Paint::Attention, format!("{name}: it is not known whether it matches what is installed.")),
    }
}

fn number(gpus: usize) -> String {
    match gpus {
        1 => "its GPU".to_owned(),
        gpus => format!("its {gpus} GPUs"),
    }
}

/// What to type next.
pub fn next(status: &Status) -> Vec<&'static str> {
    let bad = |class: Class| status.gpus.iter().any(|gpu| gpu.need.class == class);
    match status.state {
        State::Busy | State::Restoring => {
            return vec!["`journalctl -f -u 'nvidia-reload-*'` follows the run"];
        }
        State::Drained => {
            return vec![
                "`nvidia-reload start` restarts the workloads",
                "`nvidia-reload stop --offline` unloads the driver too",
            ];
        }
        State::Offline => return vec!["`nvidia-reload start` loads the driver and restarts the workloads"],
        State::InService | State::Unknown => {}
    }
    if status.runs.open.is_some() {
        return vec!["`nvidia-reload recover` ends the interrupted run and restores what it stopped"];
    }
    // What is said of the driver has its own remedy.
    if status.driver.out_of_reach.is_some() {
        return vec!["`nvidia-reload check` shows what the driver needs, in one line"];
    }
    if bad(Class::Reboot) {
        return vec!["reboot the machine"];
    }
    if bad(Class::Reset) {
        return vec![
            "`nvidia-reload reset --dry-run` shows whether a reset is possible, and what it would stop",
        ];
    }
    if status.driver.mismatch == Some(true) {
        let mut next = vec![
            "`nvidia-reload reload --dry-run` shows what a reload would stop; `nvidia-reload reload` does it",
        ];
        if status.healed.is_none() {
            next.push("`nvidia-reload heal` lets programs find the loaded driver's libraries until then");
        }
        return next;
    }
    if bad(Class::Failed) {
        return vec![
            "`nvidia-reload verify` shows each check; `nvidia-reload reload --dry-run` what a reload would stop",
        ];
    }
    if status.gate.shut {
        return vec!["`nvidia-reload plan` shows why module loading is blocked, and what to do"];
    }
    if status.driver.loaded.is_none() && !status.driver.present {
        return match status.driver.on_disk {
            Some(_) => vec!["`modprobe nvidia` loads the driver that is installed"],
            None => vec!["install the driver for the running kernel"],
        };
    }
    vec!["`nvidia-reload verify` checks the driver; `nvidia-reload --help` lists all commands"]
}
