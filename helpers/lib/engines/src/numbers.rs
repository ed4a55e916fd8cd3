// SPDX-License-Identifier: MIT
//! Which device numbers are the driver's, and what lies at a path.
//!
//! A number is a device's identity. A path is not: nodes are made under any name, linked, renamed,
//! and a directory may be given whole.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use step::Root;

/// A device's major and minor number.
pub type Number = (u32, u32);

/// NVIDIA's own major number, the same since ever: known even while the driver is not loaded.
pub const NVIDIA: u32 = 195;

/// What of a directory of nodes is looked at; `/dev` has some hundreds.
const MOST: usize = 10_000;

/// What lies at a path of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Missing,
    /// The character devices there: one for a node, many for a directory, none for anything else.
    Devices(Vec<(String, Number)>),
}

/// What the selection has to know of the host.
pub trait Host {
    /// What the kernel calls the driver's devices of this number; none for any other's.
    fn class(&self, number: Number) -> Option<String>;
    /// What lies at `path`.
    fn at(&self, path: &str) -> Found;
}

/// The machine below a root.
pub struct Machine {
    root: Root,
    majors: Vec<(u32, String)>,
}

impl Machine {
    /// Reads which majors the driver has at this moment.
    ///
    /// # Errors
    /// `/proc/devices` cannot be read.
    pub fn load(root: &Root) -> io::Result<Self> {
        let devices = graph::character_devices(root).map_err(io::Error::other)?;
        Ok(Self { root: root.clone(), majors: of_driver(devices) })
    }
}

impl Machine {
    /// The major number that devices of this name have now.
    pub fn major(&self, class: &str) -> Option<u32> {
        self.majors.iter().find_map(|(major, name)| (name == class).then_some(*major))
    }
}

/// The majors of NVIDIA's character devices. Apart from 195 they move with every load.
fn of_driver(mut devices: Vec<(u32, String)>) -> Vec<(u32, String)> {
    devices
        .retain(|(_, name)| matches!(name.as_str(), "nvidia" | "nvidiactl") || name.starts_with("nvidia-"));
    devices
}

impl Host for Machine {
    fn class(&self, (major, minor): Number) -> Option<String> {
        if major == NVIDIA {
            return Some("nvidia".to_owned());
        }
        if let Some((_, name)) = self.majors.iter().find(|(known, _)| *known == major) {
            return Some(name.clone());
        }
        // DRM nodes share their major with every other driver: sysfs tells whose device it is.
        let device = self.root.path(format!("/sys/dev/char/{major}:{minor}/device"));
        let driver = fs::read_link(device.join("driver")).ok()?;
        (driver.file_name()?.as_bytes() == b"nvidia").then(|| "a DRM node of nvidia".to_owned())
    }

    fn at(&self, path: &str) -> Found {
        // A path inside a mount of the container's own has no place on the host.
        if !path.starts_with('/') {
            return Found::Devices(Vec::new());
        }
        let real = self.root.path(path);
        match fs::metadata(&real) {
            Err(_) => Found::Missing,
            Ok(meta) if meta.is_dir() => {
                let mut found = Vec::new();
                let mut looked = 0;
                walk(&real, path, &mut found, &mut looked);
                Found::Devices(found)
            }
            Ok(meta) if meta.file_type().is_char_device() => {
                Found::Devices(vec![(path.to_owned(), number(meta.rdev()))])
            }
            Ok(_) => Found::Devices(Vec::new()),
        }
    }
}

/// A host of which no path is looked at: those in the answers of a user's engine may lead to what is the user's.
/// What lies there is asked for as that user, see [`crate::Client::bundle`].
pub struct Unseen<'a>(pub &'a Machine);

impl Host for Unseen<'_> {
    fn class(&self, number: Number) -> Option<String> {
        self.0.class(number)
    }

    fn at(&self, _: &str) -> Found {
        Found::Missing
    }
}

fn walk(real: &Path, path: &str, found: &mut Vec<(String, Number)>, looked: &mut usize) {
    for entry in fs::read_dir(real).into_iter().flatten().flatten() {
        *looked += 1;
        if *looked > MOST {
            return;
        }
        // Of the entry itself: a link leads to a node that is either here as well or not given.
        let Ok(meta) = entry.metadata() else { continue };
        let below = format!("{}/{}", path.trim_end_matches('/'), entry.file_name().to_string_lossy());
        if meta.is_dir() {
            walk(&entry.path(), &below, found, looked);
        } else if meta.file_type().is_char_device() {
            found.push((below, number(meta.rdev())));
        }
    }
}

/// Splits the kernel's device number as glibc's `gnu_dev_major` and `gnu_dev_minor` do.
fn number(rdev: u64) -> Number {
    let major = ((rdev >> 32) & 0xffff_f000) | ((rdev >> 8) & 0xfff);
    let minor = ((rdev >> 12) & 0xffff_ff00) | (rdev & 0xff);
    (major as u32, minor as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn majors_are_read_by_name() {
        let text = "Character devices:\n  1 mem\n195 nvidia\n195 nvidia-modeset\n195 nvidiactl\n\
                    226 drm\n510 nvidia-uvm\n511 nvidia-caps\n\nBlock devices:\n 259 nvidia-not\n";
        let devices = of_driver(graph::in_devices(text.as_bytes()));
        let names: Vec<_> = devices.into_iter().map(|(major, name)| format!("{major} {name}")).collect();
        assert_eq!(
            names,
            ["195 nvidia", "195 nvidia-modeset", "195 nvidiactl", "510 nvidia-uvm", "511 nvidia-caps"]
        );
    }

    #[test]
    fn no_path_that_a_user_names_is_looked_at() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let machine = Machine { root: Root::at(directory.path()), majors: vec![(510, "nvidia-uvm".into())] };
        let path = "/home/ada/nodes";
        fs::create_dir_all(machine.root.path(path)).expect("creates");
        assert_eq!(machine.at(path), Found::Devices(Vec::new()));
        let unseen = Unseen(&machine);
        assert_eq!((unseen.at(path), unseen.class((510, 0))), (Found::Missing, Some("nvidia-uvm".into())));
    }

    #[test]
    fn numbers_come_apart_as_in_the_kernel() {
        assert_eq!(number(0xc3ff), (195, 255));
        assert_eq!(number(0x1fe01), (510, 1));
        assert_eq!(number(0x10_fe00), (254, 256));
    }

    #[test]
    fn a_drm_node_is_the_drivers_when_sysfs_says_so() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (number, driver) in [("226:0", "i915"), ("226:128", "nvidia")] {
            let device = directory.path().join("sys/dev/char").join(number).join("device");
            fs::create_dir_all(&device).expect("creates");
            symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).expect("links");
        }
        let machine = Machine { root: Root::at(directory.path()), majors: vec![(510, "nvidia-uvm".into())] };
        assert_eq!(machine.class((226, 0)), None);
        assert_eq!(machine.class((226, 128)).as_deref(), Some("a DRM node of nvidia"));
        assert_eq!(machine.class((510, 0)).as_deref(), Some("nvidia-uvm"));
        assert_eq!(machine.class((195, 7)).as_deref(), Some("nvidia"));
        assert_eq!(machine.class((1, 3)), None);
    }

    #[test]
    fn what_lies_at_a_path() {
        let machine = Machine { root: Root::system(), majors: Vec::new() };
        assert_eq!(machine.at("/dev/null"), Found::Devices(vec![("/dev/null".into(), (1, 3))]));
        assert_eq!(machine.at("/proc/self/cmdline"), Found::Devices(vec![]));
        assert_eq!(machine.at("/dev/no-such-node"), Found::Missing);
        let Found::Devices(all) = machine.at("/dev") else { panic!("/dev is there") };
        assert!(all.contains(&("/dev/zero".into(), (1, 5))), "{all:?}");
    }
}
