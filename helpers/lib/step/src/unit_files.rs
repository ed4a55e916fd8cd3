// SPDX-License-Identifier: MIT
//! The unit files against the list of steps: each target and each step names all earlier steps, in order, and the
//! settings that the steps share are the same in each. nvidia-reload.target(8) explains these settings once.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use ledger::Step;

use crate::units::{DRAINED, OFFLINE, RELOAD, RESET};

/// What all steps share, and nvidia-reload.target(8) explains.
const SHARED: [&str; 7] = [
    "After=dbus.socket",
    "StopWhenUnneeded=yes",
    "RefuseManualStart=yes",
    "StartLimitIntervalSec=0",
    "Type=oneshot",
    "RemainAfterExit=yes",
    "NotifyAccess=exec",
];

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of our services and targets: name and text.
fn all() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for directory in ["units", "targets"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..").join(directory);
        for entry in fs::read_dir(path).expect("lists") {
            let name = entry.expect("lists").file_name().into_string().expect("is text");
            if name.ends_with(".service") || name.ends_with(".target") {
                let text = read(&format!("{directory}/{name}"));
                found.insert(name, text);
            }
        }
    }
    assert!(found.len() > 30, "{}", found.len());
    found
}

/// The values of `directive`, one a line.
fn values<'a>(text: &'a str, directive: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('=')).collect()
}

fn names(steps: &[Step]) -> String {
    steps.iter().map(|step| step.unit()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_target_is_the_first_steps_of_the_list() {
    let files = all();
    for (target, request, steps) in [
        (RELOAD, None, &Step::ALL[..]),
        (RESET, Some("reset"), &Step::RESET[..]),
        (DRAINED, Some("hold"), &Step::ALL[..4]),
        (OFFLINE, Some("hold"), &Step::ALL[..6]),
    ] {
        let text = &files[target];
        let steps = names(steps);
        let request = request.map(|name| format!("nvidia-reload-{name}-request.service "));
        let pulled_in = format!("{}{steps}", request.unwrap_or_default());
        assert_eq!(values(text, "Requires"), [&*pulled_in], "{target}");
        assert_eq!(values(text, "After")[0], pulled_in, "{target}");
        assert_eq!(values(text, "PropagatesStopTo"), [&*steps], "{target}");
        assert_eq!(values(text, "OnFailure"), [&*Step::Rollback.unit()], "{target}");
        let holds = [DRAINED, OFFLINE].contains(&target);
        assert_eq!(values(text, "StopWhenUnneeded").is_empty(), holds, "{target}");
    }
}

#[test]
fn a_step_is_after_all_earlier_ones() {
    let files = all();
    for order in [&Step::ALL[..], &Step::RESET[..]] {
        for (position, step) in order.iter().enumerate() {
            let text = &files[&step.unit()];
            let earlier = names(&order[..position]);
            if position == 0 {
                assert_eq!(values(text, "Requires"), [""; 0], "{step}");
                continue;
            }
            // A reset needs its request, too.
            assert_eq!(values(text, "Requires")[0], earlier, "{step}");
            assert!(values(text, "After").contains(&&*earlier), "{step} is not after {earlier}");
        }
    }
}

#[test]
fn rollback_is_after_every_step() {
    let text = &all()[&Step::Rollback.unit()];
    let after: Vec<&str> = values(text, "After").into_iter().flat_map(str::split_whitespace).collect();
    for step in Step::ALL.into_iter().chain(Step::RESET) {
        assert!(after.contains(&&*step.unit()), "{step}");
    }
}

#[test]
fn what_the_steps_share_is_in_each_and_explained_once() {
    let files = all();
    let page = read("docs/man/nvidia-reload.target.8");
    for step in Step::ALL.into_iter().chain([Step::GpuReset]) {
        let text = &files[&step.unit()];
        for line in SHARED {
            assert!(text.lines().any(|found| found == line), "{step} has no {line}");
        }
        // While a step stops, no unit starts that either of them is ordered with (systemd.unit(5)): the undo of a step
        // waited for Podman, and Podman's start for the end of that undo.
        for engine in ["docker", "containerd", "podman", "crio"] {
            let is_engines = |name: &str| name.starts_with(engine);
            let mut ordered = values(text, "After").into_iter().chain(values(text, "Before"));
            assert!(!ordered.any(|names| names.split_whitespace().any(is_engines)), "{step}: {engine}");
        }
        let run = format!("/usr/libexec/nvidia-reload/{step} run");
        let undo = format!("/usr/libexec/nvidia-reload/{step} undo");
        assert!(values(text, "ExecStart").contains(&&*run), "{step}");
        assert!(values(text, "ExecStopPost").contains(&&*undo), "{step}");
        assert!(values(text, "ExecStop").is_empty(), "{step}");
        for timeout in ["TimeoutStartSec", "TimeoutStopSec"] {
            assert_eq!(values(text, timeout).len(), 1, "{step}: {timeout}");
        }
    }
    let shared = SHARED.iter().filter_map(|line| line.split('=').next());
    for directive in
        shared.chain(["Requires", "ExecStopPost", "TimeoutStartSec", "OnFailure", "PropagatesStopTo"])
    {
        assert!(page.contains(&format!("\\fI{directive}=\\fR")), "the page does not explain {directive}=");
    }
}

#[test]
fn every_unit_is_described_and_in_the_page() {
    let files = all();
    let page = read("docs/man/nvidia-reload.target.8");
    let mut seen = BTreeMap::new();
    for (name, text) in &files {
        let [description] = values(text, "Description")[..] else { panic!("{name}: one Description=") };
        assert!(description.len() <= 46 && !description.ends_with('.'), "{name}: {description}");
        assert_eq!(seen.insert(description, name), None, "{description} is the Description= of two units");
        assert_eq!(values(text, "Documentation").len(), 1, "{name}");
        // In roff a hyphen of a name is `\-`. The undos are there as nvidia-reload-undo-STEP.service.
        let written = if name.starts_with("nvidia-reload-undo-") {
            "nvidia\\-reload\\-undo\\-".to_owned()
        } else {
            name.replace('-', "\\-")
        };
        assert!(page.contains(&written), "the page does not name {name}");
    }
}

/// A comment that many files have belongs to the page. In the sandbox each capability has its reason beside it.
#[test]
fn a_comment_is_in_few_files() {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, text) in all() {
        let before = text.split("# --- sandbox").next().unwrap_or_default().to_owned();
        for line in before.lines().filter(|line| line.starts_with('#')) {
            files.entry(line.to_owned()).or_default().push(name.clone());
        }
    }
    for (line, names) in files.iter().filter(|(line, _)| !line.starts_with("# SPDX")) {
        assert!(names.len() <= 4, "{line}: {names:?}");
    }
}
