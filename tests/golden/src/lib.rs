// SPDX-License-Identifier: MIT
//! Whole machines as folders: `tests/golden/NAME/` has what a distribution's driver looks like after an
//! upgrade, and `expected` what is said of it. `tests/golden/README.md` has the format. Each helper that says
//! something of such a machine has a test that compares it.

#![forbid(unsafe_code)]

mod made_up;
mod packed;
mod tree;
mod unified;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use step::Root;

pub use made_up::{run, script, write};
pub use packed::{Form, packed};
pub use unified::unified;

/// All that `expected` may say, in the order of its lines.
const KEYS: [&str; 11] = [
    "loaded",
    "installed",
    "file",
    "verdict",
    "exit",
    "because",
    "remedy",
    "check",
    "request",
    "initramfs",
    "slot",
];

/// Where a distribution has NVML's library.
const LIBRARIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/run/opengl-driver/lib",
];

/// A machine, made of the folder of a case.
pub struct Machine {
    /// The case's name.
    pub name: String,
    /// The machine.
    pub root: Root,
    /// NVML's library that the linker would choose, and its version.
    pub library: Option<(PathBuf, Option<String>)>,
    directory: tempfile::TempDir,
}

impl Machine {
    fn of(case: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        tree::make(case, directory.path());
        let root = Root::at(directory.path());
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, library: library(&root), root, directory }
    }

    /// The version of the driver's libraries.
    pub fn library_version(&self) -> Option<&str> {
        self.library.as_ref().and_then(|(_, version)| version.as_deref())
    }

    /// A line of `expected`.
    pub fn line(&self, key: &str, value: &str) -> String {
        let value = value.replace(&format!("{}/", self.directory.path().display()), "/");
        format!("{key}: {value}\n")
    }
}

/// Compares what `judge` says of each machine, in lines with these `keys`, with what is expected. With `BLESS`
/// in the environment what it says is written down as expected.
///
/// # Panics
/// Something else is said, or a case is not as its format is.
pub fn compare(keys: &[&str], judge: impl Fn(&Machine) -> String) {
    let cases = cases();
    assert!(cases.len() >= 30, "{} cases", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let path = case.join("expected");
        let expected = fs::read_to_string(&path).expect("a case says what is expected");
        let judged = judge(&Machine::of(&case));
        let is_of = |line: &&str| keys.contains(&key(&case, line));
        if std::env::var_os("BLESS").is_some() {
            let others = expected.lines().filter(|line| !is_of(line));
            let mut lines: Vec<&str> = others.chain(judged.lines()).collect();
            // The reasons and remedies of a plan stay in pairs.
            lines.sort_by_key(|line| {
                let key = key(&case, line).replace("remedy", "because");
                KEYS.iter().position(|known| *known == key)
            });
            fs::write(&path, lines.join("\n") + "\n").expect("writes");
        } else if !judged.lines().eq(expected.lines().filter(is_of)) {
            write!(wrong, "\n== {}\n{judged}", case.display()).expect("writes");
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{wrong}");
}

/// The key of a line; nothing for a comment.
fn key<'a>(case: &Path, line: &'a str) -> &'a str {
    if line.starts_with('#') {
        return "";
    }
    let key = line.split(':').next().unwrap_or_default();
    assert!(KEYS.contains(&key), "{}: {line}", case.display());
    key
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the cases are there");
    let paths = entries.map(|entry| entry.expect("reads").path());
    let mut cases: Vec<PathBuf> = paths.filter(|path| path.is_dir() && !path.ends_with("src")).collect();
    cases.sort();
    cases
}

/// NVML's library, where a distribution has it: what the linker would choose.
fn library(root: &Root) -> Option<(PathBuf, Option<String>)> {
    LIBRARIES.iter().find_map(|directory| {
        let path = root.path(directory).join("libnvidia-ml.so.1");
        let file = fs::read_link(&path).ok()?;
        let version = file.to_string_lossy().split_once(".so.").map(|(_, version)| version.to_owned());
        Some((path, version))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_distributions_names_what_there_is() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let text = fs::read_to_string(top.join("docs/distributions.md")).expect("is there");
        let cells: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        let named: Vec<&str> = cells.iter().flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
        for name in named.iter().filter(|name| !name.starts_with('.')) {
            let is_there =
                ["tests/golden", "tests/scenarios"].iter().any(|at| top.join(at).join(name).exists());
            assert!(is_there, "{name} is neither a machine nor a scenario");
        }
        for case in cases() {
            let name = case.file_name().unwrap_or_default().to_string_lossy();
            assert!(named.contains(&&*name), "{name} is not in the table");
        }
    }
}
