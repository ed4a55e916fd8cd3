// SPDX-License-Identifier: MIT
//! What must hold of the sources themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

use crate::stages::checkout;

/// The files with `unsafe`, and what for. Everything else is safe Rust.
const UNSAFE: &[(&str, &str)] = &[
    ("helpers/lib/gpu/src/links.rs", "NVML is a C library"),
    ("helpers/lib/gpu/src/mig.rs", "NVML is a C library"),
    ("helpers/lib/gpu/src/nvml.rs", "a C library is opened"),
    ("helpers/lib/gpu/src/read.rs", "NVML is a C library"),
    ("helpers/lib/gpu/src/set.rs", "NVML is a C library"),
    ("helpers/lib/holders/src/console.rs", "FBIOGET_CON2FBMAP has no wrapper"),
    ("helpers/lib/holders/src/in_flight.rs", "SO_PEERCRED of a socket without peer has no wrapper"),
    ("helpers/lib/holders/src/kcmp.rs", "kcmp has no wrapper"),
    ("helpers/lib/holders/src/namespace.rs", "NS_GET_OWNER_UID has no wrapper"),
    ("helpers/lib/holders/src/search/large.rs", "pre_exec in a test"),
    ("helpers/lib/holders/src/search/tests.rs", "unshare and mmap in a test"),
    ("helpers/lib/modules/src/kmod.rs", "libkmod is a C library"),
    ("helpers/lib/modules/src/watched.rs", "fork has no safe wrapper"),
    ("helpers/lib/step/src/program.rs", "set_var, before there is a second thread"),
    ("tests/hold/src/main.rs", "fork and signal"),
    ("tests/hold/src/ways.rs", "devices are opened in every way that programs do"),
    ("tests/nvml-sim/src/calls/device.rs", "a C library's interface"),
    ("tests/nvml-sim/src/calls/mig.rs", "a C library's interface"),
    ("tests/nvml-sim/src/calls/mod.rs", "a C library's interface"),
    ("tests/nvml-sim/src/calls/system.rs", "a C library's interface"),
    ("tests/nvml-sim/src/driver.rs", "a C library's interface"),
    ("tests/nvml-sim/src/place.rs", "a C library's interface"),
    ("tests/rig/src/command.rs", "pre_exec"),
    ("tests/rig/src/room.rs", "pre_exec"),
];

/// The crates of the workspace: their directories, from the checkout.
fn crates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for above in ["helpers", "helpers/lib", "tests"] {
        for entry in fs::read_dir(checkout().join(above)).expect("lists") {
            let directory = entry.expect("lists").path();
            if directory.join("Cargo.toml").exists() {
                found.push(directory);
            }
        }
    }
    assert!(found.len() > 30, "{}", found.len());
    found.sort();
    found
}

/// The Rust sources below `directory`.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether the word `unsafe` is among the tokens: not in a comment, a text or the name of a lint.
fn has_unsafe(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "unsafe",
        TokenTree::Group(group) => has_unsafe(group.stream()),
        _ => false,
    })
}

#[test]
fn unsafe_is_in_the_files_that_are_listed_and_nowhere_else() {
    let mut found = BTreeSet::new();
    let mut without = Vec::new();
    for directory in crates() {
        let sources = sources(&directory);
        let before = found.len();
        for path in &sources {
            let tokens = text(path).parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if has_unsafe(tokens) {
                found.insert(path.strip_prefix(checkout()).expect("is below").display().to_string());
            }
        }
        if found.len() == before {
            let is_root = |path: &&PathBuf| {
                path.ends_with("src/lib.rs")
                    || path.ends_with("src/main.rs")
                    || path.parent().is_some_and(|above| above.ends_with("src/bin"))
            };
            let roots = sources.iter().filter(is_root);
            without.extend(roots.filter(|path| !text(path).contains("#![forbid(unsafe_code)]")).cloned());
        }
    }
    let listed: BTreeSet<String> = UNSAFE.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(found, listed, "on the left the files that have it");
    assert!(without.is_empty(), "without #![forbid(unsafe_code)]: {without:?}");
}

#[test]
fn what_unsafe_looks_like() {
    let has = |text: &str| has_unsafe(text.parse().expect("is Rust"));
    assert!(has("fn a() { if b { unsafe { c() } } }") && has("#[unsafe(no_mangle)] fn a() {}"));
    assert!(has("macro_rules! a { () => { unsafe { b() } } }"));
    assert!(!has("// unsafe\nfn a() -> &'static str { \"unsafe\" }") && !has("#![forbid(unsafe_code)]"));
}

/// Each directory of a corpus is one of a target, which names it.
#[test]
fn every_corpus_has_a_target() {
    let mut count = 0;
    for directory in crates() {
        let Ok(targets) = fs::read_dir(directory.join("corpus")) else { continue };
        let all: String = sources(&directory).iter().map(|path| text(path)).collect();
        for target in targets {
            let name = target.expect("lists").file_name().into_string().expect("is text");
            assert!(
                all.contains(&format!("\"{name}\"")),
                "{}/corpus/{name} has no target",
                directory.display()
            );
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

/// Directories whose files have no line with the licence yet: with a change there, the rig builds the images of its
/// machines again. They get it with the next change.
const WITHOUT_LICENCE: [&str; 2] = ["tests/rig/recipes", "tests/guest"];

/// Whether a file is a source: by its name, or since it is a script.
fn is_source(path: &Path, text: &str) -> bool {
    const SUFFIXES: [&str; 8] = ["rs", "c", "py", "sh", "service", "target", "spec", "8"];
    let is_named = |suffix: &std::ffi::OsStr| SUFFIXES.iter().any(|known| suffix == *known);
    path.extension().is_some_and(is_named) || path.ends_with("Makefile") || text.starts_with("#!")
}

#[test]
fn every_source_names_its_licence() {
    const ABOVE: [&str; 11] = [
        "helpers",
        "units",
        "targets",
        "dracut",
        "debian",
        "rpm",
        "packaging",
        "tests",
        "docs",
        "Makefile",
        "fleet",
    ];
    let mut directories: Vec<PathBuf> =
        ABOVE.iter().map(|name| checkout().join(name)).filter(|path| path.exists()).collect();
    let (mut count, mut without) = (0, Vec::new());
    while let Some(path) = directories.pop() {
        let below = path.strip_prefix(checkout()).expect("is below");
        let is_left_out = WITHOUT_LICENCE.iter().any(|name| below == Path::new(name))
            || below.ends_with("target")
            || below.ends_with("corpus")
            || (below.starts_with("tests/golden")
                && below.components().count() == 3
                && !below.ends_with("src"));
        if is_left_out || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            directories.extend(fs::read_dir(&path).expect("lists").map(|entry| entry.expect("lists").path()));
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path).expect("reads")).into_owned();
        if is_source(&path, &text) {
            count += 1;
            if !text.lines().take(3).any(|line| line.contains("SPDX-License-Identifier: ")) {
                without.push(below.display().to_string());
            }
        }
    }
    assert!(count > 500, "{count}");
    assert!(without.is_empty(), "without a line with SPDX-License-Identifier: {without:?}");
}
