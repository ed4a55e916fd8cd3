// SPDX-License-Identifier: MIT
//! What a slot says of itself.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::dpkg::Package;

/// The format that this program writes; a slot of any other cannot be used, and is made again.
pub(crate) const SCHEMA: &str = "nvidia-reload.slot/1";

/// The manifest's name in the slot's directory.
pub(crate) const FILE: &str = "manifest.json";

/// How it was found which files belong to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// By dpkg's lists of the packages that the libraries came from.
    Dpkg,
    /// By RPM's database, likewise.
    Rpm,
    /// By the record that NVIDIA's installer keeps.
    Installer,
    /// By their names alone: the version, and those that NVIDIA gives its programs.
    Names,
}

/// A driver in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `nvidia-reload.slot/1`.
    pub schema: String,
    /// The driver's version.
    pub version: String,
    /// The release of the kernel that its modules are built for.
    pub kernel: String,
    /// When it was made, in microseconds since 1970.
    pub made_usec: u64,
    /// How its files were found.
    pub origin: Origin,
    /// The packages that it came from; empty where it did not.
    pub packages: Vec<Package>,
    /// All that belongs to it.
    pub files: Vec<Entry>,
}

/// A file of the driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Entry {
    /// A regular file.
    File(SavedFile),
    /// A symbolic link.
    Link(SavedLink),
}

impl Entry {
    /// Where it belongs.
    pub fn path(&self) -> &str {
        match self {
            Entry::File(file) => &file.path,
            Entry::Link(link) => &link.path,
        }
    }

    /// Whether it is a kernel module, or a link to one.
    pub(crate) fn is_module(&self) -> bool {
        match self {
            Entry::File(file) => file.module.is_some(),
            Entry::Link(link) => Path::new(&link.path).file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.ends_with(".ko") || name.contains(".ko.")
            }),
        }
    }
}

/// A regular file, as it was where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedFile {
    /// Where it belongs: absolute, without links in its directories.
    pub path: String,
    /// Permission bits, those for set-user-ID among them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// When it was changed last, in nanoseconds since 1970.
    pub modified_nsec: i64,
    /// SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// Its capabilities and SELinux's label, where it has them: names and hexadecimal digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// What it declares, if it is a kernel module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<SavedModule>,
}

/// What a kernel module declares, and how it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedModule {
    /// The name that it has once it is loaded.
    pub name: String,
    /// `modinfo -F version`.
    pub version: Option<String>,
    /// `modinfo -F srcversion`.
    pub srcversion: Option<String>,
    /// `modinfo -F vermagic`.
    pub vermagic: Option<String>,
    /// The options that were configured while it served.
    pub options: String,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedLink {
    /// Where it belongs.
    pub path: String,
    /// What it says.
    pub target: String,
}

impl SavedFile {
    /// Where the slot has it, below the slot's directory.
    pub fn stored_as(&self) -> String {
        match &self.module {
            Some(module) => {
                let suffix = self.path.find(".ko").map_or(".ko", |at| &self.path[at..]);
                // Named for the module: the options of that name are those that count.
                format!("modules/{}{suffix}", module.name)
            }
            None => format!("files{}", self.path),
        }
    }
}

impl Manifest {
    /// Reads the manifest in `directory`.
    ///
    /// # Errors
    /// It is not there, is of another format, or names a place that no driver's file is in.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let manifest: Self =
            serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))?;
        if manifest.schema != SCHEMA {
            bail!("{} is of the format {}, not {SCHEMA}", path.display(), manifest.schema);
        }
        for entry in &manifest.files {
            let file = Path::new(entry.path());
            if !file.is_absolute() || file.components().any(|part| part.as_os_str() == "..") {
                bail!("{} names the file {}, which is no absolute path", path.display(), entry.path());
            }
        }
        Ok(manifest)
    }

    /// Its regular files.
    pub fn regular(&self) -> impl Iterator<Item = &SavedFile> {
        self.files.iter().filter_map(|entry| match entry {
            Entry::File(file) => Some(file),
            Entry::Link(_) => None,
        })
    }

    /// The bytes that its files have together.
    pub fn size(&self) -> u64 {
        self.regular().map(|file| file.size).sum()
    }
}
