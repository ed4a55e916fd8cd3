// SPDX-License-Identifier: MIT
//! What may lie where the specifications are. See the crate `fuzz`.

use std::fs;

use step::Root;

use super::spec::specs;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn run(target: &str, file: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    for folder in ["/etc/cdi", "/proc"] {
        fs::create_dir_all(root.path(folder)).expect("creates");
    }
    fuzz::run(HERE, target, |text| {
        fs::write(root.path("/etc/cdi").join(file), text).expect("writes");
        for spec in specs(&root).expect("lists").0 {
            let problems = spec.problems(&root);
            let length: usize = problems.iter().map(String::len).sum();
            // Each path once, and a sentence about it. The reader's own words on what it does not understand.
            assert!(length <= 32 * text.len() + 1024, "{length} bytes of problems for {}", text.len());
        }
    });
}

#[test]
fn json() {
    run("cdi-json", "nvidia.json");
}

#[test]
fn yaml() {
    run("cdi-yaml", "nvidia.yaml");
}
