// SPDX-License-Identifier: MIT
//! The driver's modules and the character devices, as the kernel shows them: read here and nowhere else.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use step::{BY_NAME, Root};

/// The module that all others of the driver hang on.
pub const DRIVER: &str = "nvidia";

/// The modules that NVIDIA's driver is made of. Any other module on the graph belongs to somebody else (gdrdrv,
/// nvidia_fs, a network driver) and is a holder in the kernel.
const OF_DRIVER: [&str; 6] =
    [DRIVER, "nvidia_modeset", "nvidia_drm", "nvidia_uvm", "nvidia_peermem", "nvidia_vgpu_vfio"];

/// Whether a module is NVIDIA's own; any other on the graph uses it.
pub fn is_of_driver(module: &str) -> bool {
    OF_DRIVER.contains(&module)
}

/// Why the kernel's own files do not tell.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the kernel's cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the kernel's says what was not expected.
    #[error("{path} says {text:?}", path = path.display())]
    Odd {
        /// The file.
        path: PathBuf,
        /// What it says.
        text: String,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A module in `/sys/module`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// `initstate`: `live`, `coming` or `going`; none for what is built into the kernel.
    pub state: Option<String>,
    /// `refcnt`; none where the kernel was built without CONFIG_MODULE_UNLOAD. Negative while the module is going away.
    pub refcount: Option<i64>,
    /// The modules that use it, sorted. The kernel shows none where there is no `refcnt`.
    pub holders: Vec<String>,
}

/// The module `name`; none if it is not there, or is gone by now.
///
/// # Errors
/// Its entry is there and cannot be read.
pub fn module(root: &Root, name: &str) -> Result<Option<Module>> {
    let directory = root.path("/sys/module").join(name);
    let state = attribute(&directory.join("initstate"))?;
    let path = directory.join("refcnt");
    let refcount = match attribute(&path)? {
        Some(text) => Some(text.trim().parse().map_err(|_| Error::Odd { path, text })?),
        None => None,
    };
    if state.is_none() && refcount.is_none() {
        return Ok(None);
    }
    Ok(Some(Module { state, refcount, holders: names(&directory.join("holders"))? }))
}

/// The driver and, recursively, what uses it: modules of others are found without a list of their names, but for
/// those that take references to it without being in its `holders/` ([`BY_NAME`]).
///
/// # Errors
/// A module's entry is there and cannot be read.
pub fn modules(root: &Root) -> Result<BTreeMap<String, Module>> {
    let mut found = BTreeMap::new();
    let mut ask = vec![DRIVER.to_owned()];
    while let Some(name) = ask.pop() {
        if found.contains_key(&name) {
            continue;
        }
        // One may go while we look: then it is not part of the graph any more.
        if let Some(module) = module(root, &name)? {
            ask.extend(module.holders.iter().cloned());
            if name == DRIVER && module.refcount.is_none() {
                ask.extend(OF_DRIVER.map(str::to_owned));
            }
            found.insert(name, module);
        }
    }
    if !found.is_empty() {
        for (name, _) in BY_NAME {
            if !found.contains_key(name)
                && let Some(module) = module(root, name)?
            {
                found.insert(name.to_owned(), module);
            }
        }
    }
    Ok(found)
}

/// What the file `path` of sysfs says; none where it is not there, or its module goes in this moment.
///
/// # Errors
/// It is there and cannot be read.
pub fn attribute(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// The names in a directory of sysfs, sorted; nothing where it is not there, or goes in this moment.
///
/// # Errors
/// It is there and cannot be read.
pub fn names(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => found.push(entry.file_name().to_string_lossy().into_owned()),
                    Err(error) if is_gone(&error) => break,
                    Err(source) => return Err(Error::Read { path: directory.to_owned(), source }),
                }
            }
        }
        Err(error) if is_gone(&error) => {}
        Err(source) => return Err(Error::Read { path: directory.to_owned(), source }),
    }
    found.sort();
    Ok(found)
}

/// sysfs says ENODEV when the module goes away under a reader.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

/// The character devices of `/proc/devices`: major and name.
///
/// # Errors
/// It cannot be read.
pub fn character_devices(root: &Root) -> Result<Vec<(u32, String)>> {
    let path = root.path("/proc/devices");
    match fs::read(&path) {
        Ok(text) => Ok(in_devices(&text)),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// The character devices in the text of `/proc/devices`. Lines that are not `MAJOR NAME` are passed over.
pub fn in_devices(text: &[u8]) -> Vec<(u32, String)> {
    text.split(|byte| *byte == b'\n')
        .take_while(|line| !line.starts_with(b"Block devices"))
        .filter_map(|line| {
            let line = std::str::from_utf8(line).ok()?.trim();
            let (major, name) = line.split_once(' ')?;
            Some((major.parse().ok()?, name.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(modules: &[(&str, &str, &[&str])]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for (name, refcount, holders) in modules {
            let module = root.path("/sys/module").join(name);
            fs::create_dir_all(module.join("holders")).expect("creates");
            fs::write(module.join("refcnt"), refcount).expect("writes");
            for holder in *holders {
                fs::create_dir(module.join("holders").join(holder)).expect("creates");
            }
        }
        (directory, root)
    }

    #[test]
    fn the_graph_is_the_driver_and_what_uses_it() {
        let (_directory, root) = machine(&[
            ("nvidia", "3\n", &["nvidia_uvm", "gdrdrv", "gone"]),
            ("nvidia_uvm", "0\n", &[]),
            ("gdrdrv", "-1\n", &[]),
            ("ext4", "1\n", &[]),
        ]);
        // Built into the kernel: a directory with parameters.
        fs::create_dir_all(root.path("/sys/module/gone/parameters")).expect("creates");
        let found = modules(&root).expect("reads");
        let counts: Vec<_> = found.iter().map(|(name, module)| (name.as_str(), module.refcount)).collect();
        assert_eq!(counts, [("gdrdrv", Some(-1)), ("nvidia", Some(3)), ("nvidia_uvm", Some(0))]);
        assert_eq!(found["nvidia"].holders, ["gdrdrv", "gone", "nvidia_uvm"]);
        assert!(modules(&machine(&[]).1).expect("reads").is_empty());
    }

    #[test]
    fn a_refcount_that_is_no_number_is_an_error_that_names_the_file() {
        let (_directory, root) = machine(&[("nvidia", "many", &[])]);
        let error = modules(&root).expect_err("no number").to_string();
        assert!(error.contains("nvidia/refcnt says \"many\""), "{error}");
    }

    #[test]
    fn devices_of_blocks_are_none_of_characters() {
        let text = b"Character devices:\n  1 mem\n195 nvidia\n510 nvidia-uvm\nodd\n\xff 1\n\nBlock devices:\n259 nvidia-not\n";
        let expected = [(1, "mem"), (195, "nvidia"), (510, "nvidia-uvm")];
        let found = in_devices(text);
        let found: Vec<(u32, &str)> = found.iter().map(|(major, name)| (*major, name.as_str())).collect();
        assert_eq!(found, expected);
    }
}
