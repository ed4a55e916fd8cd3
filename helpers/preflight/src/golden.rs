// SPDX-License-Identifier: MIT
//! What the plan of a reload says of the machines in `tests/golden`.

use gpu::{Answer, Library, State};
use ledger::{Ledger, Step};
use modules::{DRIVER, Disk, chain};
use step::{Context, Exit, Verdict};

use crate::findings::Findings;
use crate::{driver, gpus, memory};

const KEYS: [&str; 7] = ["loaded", "installed", "file", "verdict", "exit", "because", "remedy"];

#[test]
fn every_layout_is_judged_as_expected() {
    golden::compare(&KEYS, judged);
}

fn judged(machine: &golden::Machine) -> String {
    let root = &machine.root;
    let context = Context {
        step: Step::Preflight,
        root: root.clone(),
        ledger: Ledger::new(root.path("/var/lib/nvidia-reload"), "boot"),
    };
    let mut findings = Findings::default();
    let loaded = chain(root).expect("reads what is loaded");
    let versions = driver::assess(&context, &loaded, None, &mut findings).expect("judges");
    let library = match machine.library.clone() {
        Some((path, version)) => Library::Found { path, version },
        None => Library::Absent { reason: "not found".into() },
    };
    let state = State {
        library,
        instead: None,
        nvml: Answer::Asleep,
        confidential_computing: None,
        gpus: Vec::new(),
    };
    driver::reach(root, Some(&state), &mut findings).expect("judges");
    gpus::library(root, &state, &versions, &mut findings).expect("judges");
    memory::assess(root, &mut findings).expect("judges");
    let file = Disk::open(root).expect("opens").find(DRIVER).ok().flatten().map(|file| file.path);
    let (verdict, reasons, _) = findings.verdict();
    let (verdict, exit) = match verdict {
        Verdict::Ready => ("ready", Exit::Done),
        Verdict::Refused => ("refused", Exit::Refused),
        Verdict::RebootRequired => ("reboot-required", Exit::RebootRequired),
    };
    let mut text = machine.line("loaded", versions.loaded.as_deref().unwrap_or("none"));
    text += &machine.line("installed", versions.on_disk.as_deref().unwrap_or("none"));
    text += &machine.line("file", &file.map_or_else(|| "none".into(), |path| path.display().to_string()));
    text += &machine.line("verdict", verdict);
    text += &machine.line("exit", &(exit as u8).to_string());
    for reason in reasons {
        text += &machine.line("because", &reason.what);
        text += &machine.line("remedy", &reason.remedy);
    }
    text
}
