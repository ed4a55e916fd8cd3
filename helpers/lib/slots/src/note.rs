//! The note that the disk no longer is what its package database says.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use files::replace_synced;
use serde::{Deserialize, Serialize};
use step::Root;

use crate::dpkg::{Package, owners};
use crate::manifest::Origin;
use crate::{Placed, Slot};

/// Below the ledger's directory.
const FILE: &str = "/var/lib/nvidia-reload/put-back.json";

/// The format that this program writes; a note of any other is left alone.
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
    /// The driver that they replaced; null where it could not be told.
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
        let paths = placed.replaced.union(&placed.removed).cloned().collect();
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
            remedy: remedy(slot, instead_of.as_deref(), &owners(root, &paths)?),
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

fn remedy(slot: &Slot, instead_of: Option<&str>, replaced: &[Package]) -> String {
    let version = &slot.manifest.version;
    let named = |packages: &[Package], pinned: bool| {
        let word = |package: &Package| match pinned {
            true => format!("{}={}", package.name, package.version),
            false => package.name.clone(),
        };
        packages.iter().map(word).collect::<Vec<_>>().join(" ")
    };
    let old = &slot.manifest.packages;
    let mut ways = Vec::new();
    if !old.is_empty() {
        ways.push(format!(
            "`apt-get install --allow-downgrades {}` makes the package database agree",
            named(old, true)
        ));
    } else if slot.manifest.origin == Origin::Installer {
        ways.push(format!("NVIDIA's installer of {version}, run again, makes its record agree"));
    }
    if !replaced.is_empty() {
        let other = instead_of.unwrap_or("the other driver");
        ways.push(format!(
            "`apt-get install --reinstall {}` puts {other} on disk again",
            named(replaced, false)
        ));
    }
    if ways.is_empty() {
        ways.push(match instead_of {
            Some(other) => format!("install driver {version} again, or {other}, by the way it came"),
            None => format!("install driver {version} again by the way it came"),
        });
    }
    ways.join("; ")
}
