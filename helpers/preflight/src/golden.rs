//! Whole machines as folders: `tests/golden/NAME/` has what a distribution's driver looks like after an
//! upgrade, and `expected` what is said of it. `tests/golden/README.md` has the format.

mod tree;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use gpu::{Answer, Library, State};
use ledger::{Ledger, Step};
use modules::{DRIVER, Disk, chain};
use step::{Context, Exit, Root, Verdict};

use crate::findings::Findings;
use crate::{driver, gpus};

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let entries = fs::read_dir(&directory).expect("the cases are there");
    let paths = entries.map(|entry| entry.expect("reads").path());
    let mut cases: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

#[test]
fn every_layout_is_judged_as_expected() {
    let cases = cases();
    assert!(cases.len() >= 10, "{} cases", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let expected = fs::read_to_string(case.join("expected")).expect("a case says what is expected");
        let expected: Vec<&str> = expected.lines().filter(|line| !line.starts_with('#')).collect();
        let judged = judged(&case);
        if judged.lines().collect::<Vec<_>>() != expected {
            write!(wrong, "\n== {}\n{judged}", case.display()).expect("writes");
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{wrong}");
}

/// What is said of the machine in the folder `case`, in the form of `expected`.
fn judged(case: &Path) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    tree::make(case, directory.path());
    let root = Root::at(directory.path());
    let library = library(&root);
    let context = Context {
        step: Step::Preflight,
        root: root.clone(),
        ledger: Ledger::new(root.path("/var/lib/nvidia-reload"), "boot"),
    };
    let mut findings = Findings::default();
    let loaded = chain(&root).expect("reads what is loaded");
    let versions = driver::assess(&context, &loaded, None, &mut findings).expect("judges");
    let state = State {
        library,
        instead: None,
        nvml: Answer::Asleep,
        confidential_computing: None,
        gpus: Vec::new(),
    };
    driver::reach(&root, Some(&state), &mut findings).expect("judges");
    gpus::library(&root, &state, &versions, &mut findings).expect("judges");
    let file = Disk::open(&root).expect("opens").find(DRIVER).ok().flatten().map(|file| file.path);
    let (verdict, reasons, _) = findings.verdict();
    let (verdict, exit) = match verdict {
        Verdict::Ready => ("ready", Exit::Done),
        Verdict::Refused => ("refused", Exit::Refused),
        Verdict::RebootRequired => ("reboot-required", Exit::RebootRequired),
    };
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let value = value.replace(&format!("{}/", directory.path().display()), "/");
        writeln!(text, "{name}: {value}").expect("writes");
    };
    line("loaded", versions.loaded.as_deref().unwrap_or("none"));
    line("installed", versions.on_disk.as_deref().unwrap_or("none"));
    line("file", &file.map_or_else(|| "none".into(), |path| path.display().to_string()));
    line("verdict", verdict);
    line("exit", &(exit as u8).to_string());
    for reason in reasons {
        line("because", &reason.what);
        line("remedy", &reason.remedy);
    }
    text
}

/// NVML's library, where a distribution has it: what the linker would choose.
fn library(root: &Root) -> Library {
    for directory in ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"] {
        let path = root.path(directory).join("libnvidia-ml.so.1");
        if let Ok(file) = fs::read_link(&path) {
            let version = file.to_string_lossy().split_once(".so.").map(|(_, version)| version.to_owned());
            return Library::Found { path, version };
        }
    }
    Library::Absent { reason: "not found".into() }
}
