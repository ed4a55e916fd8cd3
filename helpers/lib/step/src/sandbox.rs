// SPDX-License-Identifier: MIT
//! The sandboxes in the unit files: each helper has the same one whichever way it is started, and each capability
//! has its reason beside it. The scenario `installed` has the limits of what `systemd-analyze security` finds.
//!
//! What a directive costs each start of a unit decides where it stands: in the emulated machine
//! ProtectKernelTunables= took 0.1 s and more, and so the steps of a reload do without. Their system calls are a list
//! of what is forbidden: systemd compiles one of what is allowed at each start, four times as long (19 ms and 5 ms of
//! each start there). ProtectClock= keeps away all
//! devices that DeviceAllow= does not name: not where NVML is asked or nodes are made.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use ledger::Step;

use crate::sibling::undo_unit;

/// What comes after this line is the sandbox, up to the end of the section.
const MARK: &str = "# --- sandbox";

fn units() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../units")
}

fn text(unit: &str) -> String {
    fs::read_to_string(units().join(unit)).unwrap_or_else(|error| panic!("{unit}: {error}"))
}

/// What comes before the sandbox, and the sandbox.
fn parts(unit: &str) -> (String, String) {
    let text = text(unit);
    let (before, after) = text.split_once(MARK).unwrap_or_else(|| panic!("{unit} has no `{MARK}`"));
    let (_, after) = after.split_once('\n').expect("is a line");
    let sandbox = after.split("\n[").next().unwrap_or_default();
    (before.to_owned(), sandbox.trim_end().to_owned())
}

/// All services of ours.
fn all() -> Vec<String> {
    let entries = fs::read_dir(units()).expect("is there");
    let names = entries.map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".service")).collect()
}

/// The steps that have something to restore.
const UNDONE: [Step; 7] = [
    Step::DrainContainers,
    Step::StopUnits,
    Step::KillHolders,
    Step::UnbindVt,
    Step::RmmodChain,
    Step::InstallDriver,
    Step::ModprobeChain,
];

#[test]
fn an_undo_has_the_sandbox_of_its_step() {
    for step in UNDONE {
        let (undo, own) = (parts(&undo_unit(step)), parts(&step.unit()));
        assert_eq!(undo.1, own.1, "{step}");
        let program = own.0.lines().find_map(|line| line.strip_prefix("ExecStopPost="));
        let started = undo.0.lines().find_map(|line| line.strip_prefix("ExecStart="));
        assert_eq!(started, program, "{step}");
        // shutdown.target refuses its start, and stops it: `undo_is_too_late` relies on that.
        assert!(!undo.0.contains("DefaultDependencies="), "{step}");
    }
}

#[test]
fn whatever_is_undone_by_a_unit_has_one() {
    let steps: BTreeSet<String> = UNDONE.into_iter().chain([Step::Settings]).map(undo_unit).collect();
    let found: BTreeSet<String> = all().into_iter().filter(|name| name.contains("-undo-")).collect();
    assert_eq!(steps, found);
    // The others take nothing.
    let none = [Step::Preflight, Step::Verify, Step::Restore];
    for step in Step::TAKING {
        assert_ne!(none.contains(&step), steps.contains(&undo_unit(step)), "{step}");
    }
}

#[test]
fn a_sandbox_is_in_one_place_and_each_capability_has_a_reason() {
    for unit in all() {
        let (before, sandbox) = parts(&unit);
        let is_sandbox = |line: &&str| {
            [
                "Protect",
                "Private",
                "Restrict",
                "SystemCall",
                "ReadWrite",
                "Capability",
                "NoNew",
                "Lock",
                "UMask",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        };
        assert_eq!(before.lines().find(is_sandbox), None, "{unit}: before its sandbox");
        let all = sandbox.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let all = all.unwrap_or_else(|| panic!("{unit}: has all capabilities"));
        for capability in all.split_whitespace() {
            let reason = |line: &str| {
                line.strip_prefix("# ")
                    .and_then(|line| line.split_once(": "))
                    .is_some_and(|(names, _)| names.split(", ").any(|name| name == capability))
            };
            assert!(sandbox.lines().any(reason), "{unit}: why {capability}?");
        }
    }
}
