// SPDX-License-Identifier: MIT
//! Where the modules of each kernel are.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use step::Root;

/// The folders that may have one for each kernel. `/lib` is a link to `/usr/lib` on most distributions; on
/// NixOS neither has modules, and those of the system that was booted count.
const FOLDERS: [&str; 3] =
    ["/lib/modules", "/usr/lib/modules", "/run/booted-system/kernel-modules/lib/modules"];

/// The folder with the modules of the kernel `release`; the usual one where there is none.
pub fn directory(root: &Root, release: &str) -> PathBuf {
    let found = FOLDERS.iter().map(|folder| root.path(folder).join(release)).find(|path| path.is_dir());
    found.unwrap_or_else(|| root.path(FOLDERS[0]).join(release))
}

/// The releases of all kernels that have a folder.
///
/// # Errors
/// A folder is there and cannot be read.
pub(crate) fn kernels(root: &Root) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for folder in FOLDERS.map(|folder| root.path(folder)) {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", folder.display()))?;
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// Whether the package of the kernel is gone whose folder this is. What packages did not install stays behind:
/// DKMS' modules, and links to the modules of other kernels.
pub(crate) fn is_gone(directory: &Path) -> bool {
    ["modules.dep", "modules.dep.bin", "modules.builtin", "kernel"]
        .iter()
        .all(|name| !directory.join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_where_a_distribution_has_them() {
        for folder in FOLDERS {
            let top = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(top.path());
            assert_eq!(directory(&root, "6.1"), root.path("/lib/modules/6.1"), "there is none");
            fs::create_dir_all(root.path(folder).join("6.1")).expect("creates");
            assert_eq!(directory(&root, "6.1"), root.path(folder).join("6.1"));
            assert_eq!(kernels(&root).expect("reads"), BTreeSet::from(["6.1".to_owned()]));
        }
    }

    #[test]
    fn what_is_left_behind_is_no_kernel() {
        let top = tempfile::tempdir().expect("a temporary directory");
        assert!(is_gone(&top.path().join("nowhere")));
        fs::create_dir_all(top.path().join("updates/dkms")).expect("creates");
        assert!(is_gone(top.path()));
        fs::create_dir(top.path().join("kernel")).expect("creates");
        assert!(!is_gone(top.path()));
    }
}
