// SPDX-License-Identifier: MIT
//! Whether DKMS has a newer driver that it has not brought to the running kernel: then the one on disk is not
//! the one that somebody installed.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use step::Root;

use crate::findings::Findings;

/// Below it lies NAME/VERSION/KERNEL/MACHINE/module for what is built, and NAME/VERSION for what is only
/// known (dkms(8)).
const DIRECTORY: &str = "/var/lib/dkms";

/// Looks for drivers that are newer than `on_disk`, and not installed for the kernel `release`.
///
/// # Errors
/// DKMS's directory cannot be read.
pub(crate) fn assess(root: &Root, on_disk: &str, release: &str, findings: &mut Findings) -> Result<()> {
    for (name, path) in entries(&root.path(DIRECTORY))? {
        if !name.starts_with("nvidia") {
            continue;
        }
        for (version, path) in entries(&path)? {
            // Beside the versions there are links for each kernel to what is installed for it.
            if path.is_symlink() || !is_newer(&version, on_disk) {
                continue;
            }
            let is_built =
                entries(&path.join(release))?.iter().any(|(_, machine)| machine.join("module").is_dir());
            let state = match is_built {
                true => "built it, but not installed it",
                false => "not built it",
            };
            findings.warn(
                format!("DKMS has {name} {version} and has {state} for kernel {release}: the reload would load {on_disk}"),
                format!(
                    "`dkms install {name}/{version} -k {release}` does that; {} shows why it failed",
                    path.join("build/make.log").display()
                ),
            );
        }
    }
    Ok(())
}

/// The directories in `directory`, and links to such, by name.
fn entries(directory: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", directory.display()))?;
        if entry.path().is_dir() {
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether the driver's version `a` comes after `b`: numbers, apart by dots. What is no such version does not.
pub(crate) fn is_newer(a: &str, b: &str) -> bool {
    let numbers = |version: &str| version.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>();
    matches!((numbers(a), numbers(b)), (Ok(a), Ok(b)) if a > b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use step::Verdict;

    #[test]
    fn a_newer_driver_that_is_not_built_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let told = || {
            let mut findings = Findings::default();
            assess(&root, "535.261.03", "6.1.0", &mut findings).expect("looks");
            let (verdict, _, warnings) = findings.verdict();
            assert_eq!(verdict, Verdict::Ready);
            warnings.into_iter().map(|warning| warning.what).collect::<Vec<_>>()
        };
        let make = |path: &str| fs::create_dir_all(root.path(DIRECTORY).join(path)).expect("creates");
        assert_eq!(told(), Vec::<String>::new());
        make("zfs/2.1/source");
        make("nvidia/525.1/build");
        make("nvidia/535.261.03/6.1.0/x86_64/module");
        make("nvidia/kernel-6.1.0-x86_64");
        assert_eq!(told(), Vec::<String>::new());
        make("nvidia/550.163.01/build");
        make("nvidia/550.163.01/6.2.0/x86_64/module");
        assert!(
            told()[0].contains("nvidia 550.163.01 and has not built it for kernel 6.1.0"),
            "{:?}",
            told()
        );
        make("nvidia/550.163.01/6.1.0/x86_64/module");
        assert!(told()[0].contains("built it, but not installed it"), "{:?}", told());
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(is_newer("550.163.01", "550.90.07"));
        assert!(is_newer("1000.1", "999.2"));
        assert!(!is_newer("550.90.07", "550.90.07"));
        assert!(!is_newer("kernel-6.1", "550.90.07"));
    }
}
