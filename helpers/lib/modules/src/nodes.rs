// SPDX-License-Identifier: MIT
//! The driver's device nodes: recorded before, right after.
//!
//! The kernel makes none of them (NVIDIA's character devices are of no device class), so they
//! outlive the module; and the major numbers of all but 195 are assigned again at each load.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ledger::Node;
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use step::Root;

use crate::DRIVER;

/// NVIDIA's registered major number, fixed over all versions and under whatever name
/// (`nvidia-frontend` up to 535, `nvidia` and `nvidiactl` later).
const FIXED: u32 = 195;

/// The driver's major numbers now, by name in `/proc/devices`.
///
/// # Errors
/// `/proc/devices` cannot be read.
pub fn majors(root: &Root) -> Result<BTreeMap<String, u32>> {
    Ok(of_driver(graph::character_devices(root)?))
}

fn of_driver(devices: Vec<(u32, String)>) -> BTreeMap<String, u32> {
    let is_ours = |(number, name): &(u32, String)| *number == FIXED || name.starts_with(DRIVER);
    devices.into_iter().filter(is_ours).map(|(number, name)| (name, number)).collect()
}

/// The names of the device nodes of the GPU at `pci`.
///
/// # Errors
/// The kernel does not tell them.
pub fn of_gpu(root: &Root, pci: &str) -> Result<Vec<String>> {
    let path = root.path(format!("/proc/driver/nvidia/gpus/{pci}/information"));
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let minor = device_minor(&text).with_context(|| format!("{} has no device minor", path.display()))?;
    let mut nodes = vec![format!("nvidia{minor}")];
    for class in ["drm", "graphics"] {
        let path = root.path(format!("/sys/bus/pci/devices/{pci}/{class}"));
        match fs::read_dir(&path) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.with_context(|| format!("read {}", path.display()))?;
                    nodes.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    Ok(nodes)
}

/// The minor number of `/dev/nvidiaN`, which has nothing in sysfs.
fn device_minor(information: &str) -> Option<u32> {
    information.lines().find_map(|line| line.strip_prefix("Device Minor:"))?.trim().parse().ok()
}

/// The nodes of the driver below /dev.
///
/// # Errors
/// /dev or `/proc/devices` cannot be read.
pub fn snapshot(root: &Root) -> Result<Vec<Node>> {
    let classes: BTreeMap<u32, String> =
        majors(root)?.into_iter().map(|(name, number)| (number, name)).collect();
    let mut found = Vec::new();
    for path in candidates(root)? {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
        };
        if !metadata.file_type().is_char_device() {
            continue;
        }
        let number = major(metadata.rdev()) as u32;
        let Some(class) = classes.get(&number) else { continue };
        found.push(Node {
            path: path.to_string_lossy().into_owned(),
            class: class.clone(),
            major: number,
            minor: minor(metadata.rdev()) as u32,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// /dev itself and the directories in it that NVIDIA's tools make. Which of the entries are nodes
/// of the driver is judged by their numbers.
fn candidates(root: &Root) -> Result<Vec<PathBuf>> {
    let dev = root.path("/dev");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dev).with_context(|| format!("read {}", dev.display()))? {
        let entry = entry.with_context(|| format!("read {}", dev.display()))?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && entry.file_name().to_string_lossy().starts_with(DRIVER) {
            let directory = entry.path();
            for inner in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
                found.push(inner.with_context(|| format!("read {}", directory.display()))?.path());
            }
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// What was done to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was missing and is there again.
    Created(String),
    /// Its major number moved: from, to.
    Moved(String, u32, u32),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Created(path) => write!(f, "{path} is there again"),
            Change::Moved(path, from, to) => write!(f, "{path} now has major number {to}, it had {from}"),
        }
    }
}

/// Makes the nodes of `before` right for the driver that is loaded now.
///
/// # Errors
/// A node cannot be made. A node whose class the new driver does not have is removed: it leads
/// nowhere.
pub fn refresh(root: &Root, before: &[Node]) -> Result<Vec<Change>> {
    let now = majors(root)?;
    let mut changes = Vec::new();
    for node in before {
        let path = Path::new(&node.path);
        let number = if node.major == FIXED { Some(FIXED) } else { now.get(&node.class).copied() };
        let Some(number) = number else {
            files::remove(path).with_context(|| format!("remove {}", path.display()))?;
            continue;
        };
        let device = makedev(number.into(), node.minor.into());
        match fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_char_device() && there.rdev() == device => continue,
            Ok(there) => {
                make(path, node, device)?;
                changes.push(Change::Moved(node.path.clone(), major(there.rdev()) as u32, number));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(path, node, device)?;
                changes.push(Change::Created(node.path.clone()));
            }
            Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
        }
    }
    Ok(changes)
}

/// Puts a node in place in one move: an open gets the old one or the new one.
fn make(path: &Path, node: &Node, device: nix::libc::dev_t) -> Result<()> {
    let directory = path.parent().context("has a parent")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let new = path.with_extension("nvidia-reload-new");
    files::remove(&new).with_context(|| format!("remove {}", new.display()))?;
    mknod(&new, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), device)
        .with_context(|| format!("make {}", new.display()))?;
    chown(&new, Some(node.uid), Some(node.gid))
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(node.mode)))
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("put {} in place", path.display()))
}

/// Checks that the nodes of `before` lead to the driver that is loaded now.
///
/// # Errors
/// The first node that does not, named with its numbers.
pub fn check(root: &Root, before: &[Node]) -> Result<()> {
    let now = majors(root)?;
    for node in before {
        let number = if node.major == FIXED { Some(FIXED) } else { now.get(&node.class).copied() };
        let Some(number) = number else { continue };
        let metadata = fs::symlink_metadata(&node.path).with_context(|| format!("look at {}", node.path))?;
        let is = (major(metadata.rdev()) as u32, minor(metadata.rdev()) as u32);
        if is != (number, node.minor) {
            bail!("{} has number {}:{}, the driver uses {}:{}", node.path, is.0, is.1, number, node.minor);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_is_the_kernels() {
        let text = "Model: \t\t NVIDIA\nDevice Minor: \t 3\nGPU Excluded:\t No\n";
        assert_eq!(device_minor(text), Some(3));
        assert_eq!(device_minor("Model: x\n"), None);
    }

    #[test]
    fn majors_are_those_of_character_devices_of_the_driver() {
        let text = "Character devices:\n  1 mem\n195 nvidia-frontend\n242 nvidia-uvm\n\nBlock devices:\n242 nvidia-no\n";
        let found = of_driver(graph::in_devices(text.as_bytes()));
        assert_eq!(found.len(), 2);
        assert_eq!(found["nvidia-uvm"], 242);
    }
}
