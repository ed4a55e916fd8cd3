// SPDX-License-Identifier: MIT
//! The note that the disk no longer is what its package database says.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use files::replace_synced;
use modules::Manager;
use serde::{Deserialize, Serialize};
use step::Root;

use crate::dpkg::{self, Package};
use crate::manifest::Origin;
use crate::{Placed, Slot, rpm};

/// Below the ledger's directory.
const FILE: &str = "/var/lib/nvidia-reload/put-back.json";

/// The format that this program writes; a note of any other is not touched.
const SCHEMA: &str = "nvidia-reload.put-back/1";

/// What was put back, and how disk and package database come together again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// `nvidia-reload.put-back/1`.
    pub schema: String,
    /// The run that did it.
    pub run: String,
    /// When, in microseconds since 1970.
    pub at_usec: u64,
    /// The driver whose files are on disk again.
    pub version: String,
    /// The driver that they replaced; null where it is not known.
    pub instead_of: Option<String>,
    /// What brings disk and package database together, in words.
    pub remedy: String,
    /// Files that were put back, with the inodes that they got: who installs over them changes those.
    pub files: Vec<(String, u64)>,
}

impl Note {
    /// Writes that the files of `slot` are on disk in place of `instead_of`.
    ///
    /// # Errors
    /// A package database cannot be read, or the note not be written.
    pub fn write(
        root: &Root,
        run: &str,
        slot: &Slot,
        instead_of: Option<String>,
        placed: &Placed,
    ) -> Result<Self> {
        let paths: BTreeSet<PathBuf> = placed.replaced.union(&placed.removed).cloned().collect();
        let mut files = Vec::new();
        for file in slot.manifest.regular() {
            // Where a power cut came between, all were in place already.
            if placed.replaced.is_empty() || placed.replaced.contains(Path::new(&file.path)) {
                let real = root.path(&file.path);
                let data =
                    fs::symlink_metadata(&real).with_context(|| format!("look at {}", real.display()))?;
                files.push((file.path.clone(), data.ino()));
            }
        }
        let note = Self {
            schema: SCHEMA.to_owned(),
            run: run.to_owned(),
            at_usec: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64),
            version: slot.manifest.version.clone(),
            remedy: remedy(Manager::of(root), slot, instead_of.as_deref(), &of_packages(root, &paths)?),
            instead_of,
            files,
        };
        let path = root.path(FILE);
        let text = serde_json::to_vec_pretty(&note).context("encode a note")?;
        replace_synced(&path, 0o644, &text).with_context(|| format!("write {}", path.display()))?;
        Ok(note)
    }

    /// The note, as long as it holds: once somebody installed a driver over what was put back, it does
    /// not any more.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(root: &Root) -> Result<Option<Self>> {
        let path = root.path(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let note: Self =
            serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))?;
        let is_there = |(path, inode): &(String, u64)| {
            fs::symlink_metadata(root.path(path)).is_ok_and(|data| data.ino() == *inode)
        };
        Ok(Some(note).filter(|note| note.schema == SCHEMA && note.files.iter().all(is_there)))
    }

    /// What is so now, in a sentence without its end.
    pub fn sentence(&self) -> String {
        sentence(&self.version, self.instead_of.as_deref())
    }
}

/// That the files of driver `version` are on disk, `instead_of` another's, where that is known.
pub fn sentence(version: &str, instead_of: Option<&str>) -> String {
    let instead = instead_of.map(|other| format!(", in place of {other}")).unwrap_or_default();
    format!("the files of driver {version} are on disk again{instead}")
}

/// The packages that have one of `paths`, of whichever package manager.
fn of_packages(root: &Root, paths: &BTreeSet<PathBuf>) -> Result<Vec<Package>> {
    let found = dpkg::owners(root, paths)?;
    Ok(if found.is_empty() { rpm::owners(root, paths) } else { found })
}

/// What installs `old` again, older than what the package database has, and what `now` again.
fn commands(manager: Manager, old: &[Package], now: &[Package]) -> (String, String) {
    let words = |packages: &[Package], between: &str| {
        let word = |package: &Package| match (between, package.version.rsplit_once('.')) {
            ("", _) => package.name.clone(),
            // zypper(8): NAME.ARCHITECTURE=EDITION.
            ("=", Some((version, architecture))) if manager == Manager::Zypper => {
                format!("{}.{architecture}={version}", package.name)
            }
            _ => format!("{}{between}{}", package.name, package.version),
        };
        packages.iter().map(word).collect::<Vec<_>>().join(" ")
    };
    match manager {
        Manager::Dnf => {
            (format!("dnf downgrade {}", words(old, "-")), format!("dnf reinstall {}", words(now, "")))
        }
        Manager::Zypper => (
            format!("zypper install --oldpackage {}", words(old, "=")),
            format!("zypper install --force {}", words(now, "")),
        ),
        _ => (
            format!("apt-get install --allow-downgrades {}", words(old, "=")),
            format!("apt-get install --reinstall {}", words(now, "")),
        ),
    }
}

fn remedy(manager: Manager, slot: &Slot, instead_of: Option<&str>, replaced: &[Package]) -> String {
    let version = &slot.manifest.version;
    let old = &slot.manifest.packages;
    let (agree, again) = commands(manager, old, replaced);
    let mut ways = Vec::new();
    if !old.is_empty() {
        ways.push(format!("`{agree}` makes the package database agree"));
    } else if slot.manifest.origin == Origin::Installer {
        ways.push(format!("NVIDIA's installer of {version}, run again, makes its record agree"));
    }
    if !replaced.is_empty() {
        let other = instead_of.unwrap_or("the other driver");
        ways.push(format!("`{again}` puts {other} on disk again"));
    }
    if ways.is_empty() {
        ways.push(match instead_of {
            Some(other) => format!("install driver {version} again, or {other}, by the way it came"),
            None => format!("install driver {version} again by the way it came"),
        });
    }
    ways.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_manager_has_its_words() {
        let package = |name: &str, version: &str| Package { name: name.into(), version: version.into() };
        let old = [package("nvidia-driver", "3:570.133.20-1.el9.x86_64")];
        let now = [package("nvidia-driver", "3:570.158.01-1.el9.x86_64")];
        let said = |manager| commands(manager, &old, &now);
        assert_eq!(
            said(Manager::Dnf),
            (
                "dnf downgrade nvidia-driver-3:570.133.20-1.el9.x86_64".into(),
                "dnf reinstall nvidia-driver".into()
            )
        );
        let (agree, again) = said(Manager::Zypper);
        assert_eq!(agree, "zypper install --oldpackage nvidia-driver.x86_64=3:570.133.20-1.el9");
        assert_eq!(again, "zypper install --force nvidia-driver");
        assert!(said(Manager::Apt).0.starts_with("apt-get install --allow-downgrades nvidia-driver=3:570"));
    }
}
