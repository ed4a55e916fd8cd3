// SPDX-License-Identifier: MIT
//! Versions of installed packages, from dpkg's own record (dpkg(1), deb-control(5)).

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use step::Root;

/// The upstream version of the installed package of NVIDIA's that has `word` in its name; none where there is
/// none, or packages are not dpkg's.
///
/// # Errors
/// The record cannot be read.
pub(crate) fn version(root: &Root, word: &str) -> Result<Option<String>> {
    let path = root.path("/var/lib/dpkg/status");
    match fs::read(&path) {
        Ok(status) => Ok(in_status(&String::from_utf8_lossy(&status), word)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn in_status(status: &str, word: &str) -> Option<String> {
    status.split("\n\n").find_map(|package| {
        let field = |name: &str| {
            package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let is_it = |name: &str| name.contains("nvidia") && name.contains(word) && !name.contains("-dev");
        field("Package").filter(|name| is_it(name))?;
        field("Status").filter(|status| status.ends_with(" installed"))?;
        Some(upstream(field("Version")?).to_owned())
    })
}

/// Without the epoch before it and the revision behind it.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, version)| version);
    version.rsplit_once('-').map_or(version, |(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_counts() {
        const STATUS: &str = "Package: nvidia-fabricmanager-525\nStatus: deinstall ok config-files\nVersion: 525.1-1\n\nPackage: fabricmanager-tools\nStatus: install ok installed\nVersion: 1\n\nPackage: nvidia-fabricmanager-dev-550\nStatus: install ok installed\nVersion: 550.1-1\n\nPackage: nvidia-fabricmanager-535\nStatus: install ok installed\nDescription: a\n b\nVersion: 1:535.261.03-0ubuntu0.22.04.1\n";
        assert_eq!(in_status(STATUS, "fabricmanager").as_deref(), Some("535.261.03"));
        assert_eq!(in_status(STATUS, "imex"), None);
        assert_eq!(in_status("", "imex"), None);
    }
}
