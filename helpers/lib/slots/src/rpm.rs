// SPDX-License-Identifier: MIT
//! Which packages of RPM files belong to, and which files those packages have.
//!
//! Asked of `rpm` itself: its database has three formats, and only RPM reads them all. What is not known,
//! as while a transaction holds the database for long, is as if no package owned the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use step::Root;

use crate::dpkg::Package;

/// The tool; not there on most machines of dpkg.
const RPM: &str = "/usr/bin/rpm";

/// How long RPM may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it may say: a driver's packages have some hundred files.
const MOST: usize = 4 << 20;

/// Begins each line of an answer: a file without an owner is reported on the standard output, too.
const MARK: &str = "package";

/// Flags of a file (rpmfiles.h): somebody may edit it in place, or the package only owns its name, and a script
/// wrote it.
const IN_PLACE: u32 = 1 | 1 << 6;

/// A package and its files, with whether RPM replaces each by a rename.
pub(crate) struct Owned {
    pub(crate) package: Package,
    pub(crate) files: Vec<(PathBuf, bool)>,
}

/// The packages that have one of `paths`, with all their files.
pub(crate) fn owned(root: &Root, paths: &BTreeSet<PathBuf>) -> Vec<Owned> {
    if paths.is_empty() || !root.path(RPM).exists() {
        return Vec::new();
    }
    let found = packages(root, paths).and_then(|packages| {
        packages
            .into_iter()
            .map(|(full, package)| Ok(Owned { files: files(root, &full)?, package }))
            .collect()
    });
    found.unwrap_or_else(|error| {
        step::say(&format!("rpm does not show which package owns the driver's files: {error:#}"));
        Vec::new()
    })
}

/// The packages that have one of `paths`.
pub(crate) fn owners(root: &Root, paths: &BTreeSet<PathBuf>) -> Vec<Package> {
    if paths.is_empty() || !root.path(RPM).exists() {
        return Vec::new();
    }
    let found = packages(root, paths).map(|packages| packages.into_values().collect());
    found.unwrap_or_else(|error| {
        step::say(&format!("rpm does not show which package owns the replaced files: {error:#}"));
        Vec::new()
    })
}

/// By the name that RPM takes for exactly this one.
fn packages(root: &Root, paths: &BTreeSet<PathBuf>) -> Result<BTreeMap<String, Package>> {
    let format = format!("{MARK} %{{NAME}} %{{EVR}}.%{{ARCH}} %{{NVRA}}\\n");
    let mut command = query(root, &format);
    command.arg("--file").args(paths);
    // Its status is an error as soon as one of the files is of no package.
    let (_, text) = ask(&mut command)?;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let (Some(MARK), Some(name), Some(version), Some(full), None) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        {
            found.insert(full.to_owned(), Package { name: name.to_owned(), version: version.to_owned() });
        }
    }
    Ok(found)
}

fn files(root: &Root, package: &str) -> Result<Vec<(PathBuf, bool)>> {
    let mut command = query(root, &format!("[{MARK} %{{FILEFLAGS}} %{{FILENAMES}}\\n]"));
    let (is_done, text) = ask(command.arg(package))?;
    if !is_done {
        bail!("it does not list the files of {package}");
    }
    let files = text.lines().filter_map(|line| {
        let (flags, path) = line.strip_prefix(MARK)?.trim_start().split_once(' ')?;
        let flags: u32 = flags.parse().ok()?;
        Some((PathBuf::from(path), flags & IN_PLACE == 0))
    });
    Ok(files.filter(|(path, _)| path.is_absolute()).collect())
}

fn query(root: &Root, format: &str) -> Command {
    let mut command = Command::new(root.path(RPM));
    command.args(["--query", "--queryformat", format]).env("LC_ALL", "C").stderr(Stdio::null());
    command
}

/// Whether it succeeded, and what it says.
fn ask(command: &mut Command) -> Result<(bool, String)> {
    let (status, output) =
        bounded::child(command, Instant::now() + PATIENCE, MOST).with_context(|| format!("run {RPM}"))?;
    Ok((status.success(), String::from_utf8_lossy(&output).into_owned()))
}

/// Without the directories that a merged /usr has as links, which a package may still list under their old names.
pub(crate) fn plain(root: &Root, path: &Path) -> PathBuf {
    crate::tree::plain(root, path).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(script: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        golden::script(&root.path(RPM), script);
        (directory, root)
    }

    #[test]
    fn a_package_has_its_files_and_those_that_scripts_write() {
        let (_directory, root) = machine(
            r#"case "$*" in
*--file*)
    echo 'package nvidia-driver-cuda 3:570.158.01-1.el9.x86_64 nvidia-driver-cuda-570.158.01-1.el9.x86_64'
    echo 'package nvidia-driver-cuda 3:570.158.01-1.el9.x86_64 nvidia-driver-cuda-570.158.01-1.el9.x86_64'
    echo 'file /usr/bin/other is not owned by any package'
    exit 1;;
*nvidia-driver-cuda-570.158.01-1.el9.x86_64)
    echo 'package 0 /usr/bin/nvidia-smi'
    echo 'package 64 /lib/modules/5.14/extra/nvidia.ko'
    echo 'package 17 /usr/lib/modprobe.d/nvidia.conf';;
esac"#,
        );
        let paths = BTreeSet::from(["/usr/bin/nvidia-smi".into(), "/usr/bin/other".into()]);
        let found = owned(&root, &paths);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].package.version, "3:570.158.01-1.el9.x86_64");
        let expected: Vec<(PathBuf, bool)> = vec![
            ("/usr/bin/nvidia-smi".into(), true),
            ("/lib/modules/5.14/extra/nvidia.ko".into(), false),
            ("/usr/lib/modprobe.d/nvidia.conf".into(), false),
        ];
        assert_eq!(found[0].files, expected);
        assert_eq!(owners(&root, &paths), [found[0].package.clone()]);
    }

    #[test]
    fn what_rpm_does_not_report_has_no_owner() {
        let paths = BTreeSet::from([PathBuf::from("/usr/bin/nvidia-smi")]);
        let (_directory, root) = machine("echo 'error: database is locked'; exit 1");
        assert!(owned(&root, &paths).is_empty() && owners(&root, &paths).is_empty());
        let (_directory, root) = machine("case $* in *--file*) echo package a 1 a-1;; *) exit 1;; esac");
        assert!(owned(&root, &paths).is_empty());
        fs::remove_file(root.path(RPM)).expect("removes");
        assert!(owned(&root, &paths).is_empty());
    }
}
