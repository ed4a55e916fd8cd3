// SPDX-License-Identifier: MIT
//! Which packages of dpkg files belong to, and which files those packages have.
//!
//! Read from dpkg's own database: a query tool would have to be started a hundred times, and nothing
//! else could be tested on a tree of files.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use step::Root;

use crate::tree;

/// dpkg's database.
const DIRECTORY: &str = "/var/lib/dpkg";

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The name, with `:ARCHITECTURE` where several architectures can be installed side by side.
    pub name: String,
    /// The version, as dpkg has it.
    pub version: String,
}

/// A package and the files that dpkg lists for it, directories among them.
pub(crate) struct Owned {
    pub(crate) name: String,
    pub(crate) files: Vec<PathBuf>,
}

/// The packages that have one of `paths`, with all their files. Paths are without links in their
/// directories.
///
/// # Errors
/// The database is there and cannot be read.
pub(crate) fn owned(root: &Root, wanted: impl Fn(&Path) -> bool) -> Result<Vec<Owned>> {
    let mut found = Vec::new();
    let merged = merged(root);
    for list in tree::list(root, &Path::new(DIRECTORY).join("info"))? {
        let name = list.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".list") else { continue };
        // A package that goes in this moment takes its list along.
        let Some(text) = text(&root.path(&list))? else { continue };
        let files: Vec<PathBuf> = text.lines().map(|line| unmerged(&merged, line)).collect();
        if files.iter().any(|file| wanted(file)) {
            found.push(Owned { name: name.to_owned(), files });
        }
    }
    Ok(found)
}

/// The packages that have one of `paths`, with their versions.
///
/// # Errors
/// The database is there and cannot be read.
pub(crate) fn owners(root: &Root, paths: &BTreeSet<PathBuf>) -> Result<Vec<Package>> {
    let objects: BTreeSet<PathBuf> = paths.iter().filter_map(|path| objects(path)).collect();
    let owned =
        owned(root, |path| paths.contains(path) || objects.iter().any(|folder| path.starts_with(folder)))?;
    versions(root, owned.into_iter().map(|package| package.name).collect())
}

/// Where Ubuntu's packages have the objects from which they link the module at `path` when they are configured: no
/// package owns the module itself.
pub(crate) fn objects(path: &Path) -> Option<PathBuf> {
    path.extension().filter(|extension| *extension == "ko")?;
    let folder = path.parent()?;
    folder.file_name()?.to_str()?.starts_with("nvidia-").then(|| folder.join("bits"))
}

/// The installed versions of the packages `names`, as their lists are called.
///
/// # Errors
/// The database is there and cannot be read.
pub(crate) fn versions(root: &Root, names: BTreeSet<String>) -> Result<Vec<Package>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let Some(text) = text(&root.path(DIRECTORY).join("status"))? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |key: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ").map(str::to_owned))
        };
        let (Some(name), Some(version)) = (field("Package"), field("Version")) else { continue };
        let full = format!("{name}:{}", field("Architecture").unwrap_or_default());
        if let Some(name) = [full, name].into_iter().find(|name| names.contains(name)) {
            found.push(Package { name, version });
        }
    }
    found.sort();
    Ok(found)
}

/// What the file `path` says, none where it is not there. A package may list names that are no text, and a
/// maintainer may have one: none of them is a driver's.
fn text(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// The directories that a merged /usr has as links, which dpkg may still list under their old names.
fn merged(root: &Root) -> Vec<String> {
    ["bin", "sbin", "lib", "lib32", "lib64", "libx32"]
        .into_iter()
        .filter(|name| fs::read_link(root.path(name)).is_ok_and(|to| to.ends_with(format!("usr/{name}"))))
        .map(|name| format!("/{name}/"))
        .collect()
}

fn unmerged(merged: &[String], line: &str) -> PathBuf {
    match merged.iter().any(|directory| line.starts_with(directory)) {
        true => PathBuf::from(format!("/usr{line}")),
        false => PathBuf::from(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_under_old_and_new_names() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/lib/dpkg/info")).expect("creates");
        fs::create_dir_all(root.path("/usr/lib")).expect("creates");
        std::os::unix::fs::symlink("usr/lib", root.path("/lib")).expect("links");
        let write = |path: &str, text: &[u8]| fs::write(root.path(path), text).expect("writes");
        write("/var/lib/dpkg/info/libnvidia-ml1:amd64.list", b"/.\n/lib/libnvidia-ml.so.1\n");
        // A name in Latin-1, and a list that leads nowhere, as one that goes in this moment.
        write("/var/lib/dpkg/info/other.list", b"/.\n/usr/bin/other\n/usr/share/\xe9\n");
        std::os::unix::fs::symlink("gone", root.path("/var/lib/dpkg/info/a.list")).expect("links");
        write(
            "/var/lib/dpkg/status",
            b"Package: a\nMaintainer: \xe9\nVersion: 1\n\nPackage: libnvidia-ml1\nStatus: install ok installed\nArchitecture: amd64\nVersion: 535.1-1\nDescription: x\n Version: no\n\nPackage: other\nArchitecture: all\nVersion: 2\n",
        );
        let found = owners(&root, &["/usr/lib/libnvidia-ml.so.1".into()].into()).expect("reads");
        let expected = Package { name: "libnvidia-ml1:amd64".into(), version: "535.1-1".into() };
        assert_eq!(found, [expected]);
        assert_eq!(owners(&root, &["/usr/bin/none".into()].into()).expect("reads"), []);
    }

    #[test]
    fn modules_that_are_linked_in_postinst_are_of_the_packages_that_bring_the_objects() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/var/lib/dpkg/info")).expect("creates");
        let kernel = "/lib/modules/6.8.0-60-generic/kernel";
        let mut status = String::new();
        for (name, file) in [
            ("linux-modules-nvidia-570-server-6.8.0-60-generic", "nvidia-570srv/bits/BUILD"),
            ("linux-objects-nvidia-570-server-6.8.0-60-generic", "nvidia-570srv/bits/nvidia/nv-kernel.o"),
            ("linux-objects-nvidia-535-server-6.8.0-60-generic", "nvidia-535srv/bits/nvidia/nv-kernel.o"),
            ("linux-modules-6.8.0-60-generic", "drivers/acpi/bits.ko"),
        ] {
            fs::write(root.path(format!("/var/lib/dpkg/info/{name}.list")), format!("/.\n{kernel}/{file}\n"))
                .expect("writes");
            status += &format!("Package: {name}\nArchitecture: amd64\nVersion: 60.63\n\n");
        }
        fs::write(root.path("/var/lib/dpkg/status"), status).expect("writes");
        let module = PathBuf::from(format!("{kernel}/nvidia-570srv/nvidia.ko"));
        let found = owners(&root, &[module].into()).expect("reads");
        let names: Vec<&str> = found.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "linux-modules-nvidia-570-server-6.8.0-60-generic",
                "linux-objects-nvidia-570-server-6.8.0-60-generic"
            ]
        );
    }
}
