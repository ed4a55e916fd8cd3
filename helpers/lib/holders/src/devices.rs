// SPDX-License-Identifier: MIT
//! Which device numbers are the driver's, at this moment.
//!
//! Only numbers count: nodes are bind-mounted, made by mknod under any name, renamed and deleted,
//! and a file called `/tmp/nvidia0` is no device. Sources: `/proc/devices` for the drivers'
//! character majors (195 is fixed, the others move with every load), and sysfs for every node
//! that belongs to a device bound to the driver (DRM, framebuffer, i2c), whatever its major.

use crate::Result;
use crate::device::{Kind, Rdev};
use crate::model::Module;
use crate::refcounts::refcounts;
use crate::text::escape;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use step::Root;

/// One device of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The module that an open file of it keeps from being unloaded.
    pub(crate) module: String,
}

/// The driver's device numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// Majors that are wholly the driver's, with the module behind them.
    majors: Vec<(u32, Family)>,
    /// Single nodes of majors that are shared with other drivers.
    nodes: Vec<(Rdev, Node)>,
    /// Up to 545 one dispatcher in `nvidia` stood before the nodes of all modules.
    frontend: bool,
}

/// What a major of `/proc/devices` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Family {
    Main,
    Uvm,
    Caps,
    Nvswitch,
    Nvlink,
    Imex,
    /// Any other, by name, with its module.
    Other(String, String),
}

/// Under the fixed major 195: the minors that are no GPU (NVIDIA's nvidia-modprobe, nv-linux.h).
const MINOR_CTL: u32 = 255;
const MINOR_MODESET: u32 = 254;

impl Table {
    /// Reads the table. Empty where `modules` is: a node without a driver behind it can be held
    /// by no process, however stale it lies in `/dev`.
    pub(crate) fn load(root: &Root, modules: &[Module]) -> Result<Self> {
        if modules.is_empty() {
            return Ok(Self::default());
        }
        let mut table = Self::default();
        for (major, name) in graph::character_devices(root)? {
            table.frontend |= name == "nvidia-frontend";
            let known = table.majors.iter().any(|(known, _)| *known == major);
            if !known && let Some(family) = family(root, modules, &name) {
                table.majors.push((major, family));
            }
        }
        table.nodes = sysfs_nodes(root, modules);
        Ok(table)
    }

    /// The device behind a character device number, if it is the driver's.
    pub(crate) fn find(&self, rdev: Rdev) -> Option<Node> {
        if let Some((_, node)) = self.nodes.iter().find(|(known, _)| *known == rdev) {
            return Some(node.clone());
        }
        let (_, family) = self.majors.iter().find(|(major, _)| *major == rdev.major)?;
        Some(family.node(rdev.minor))
    }

    /// Whether the number is the driver's: [`Table::find`] for the hot path.
    pub(crate) fn has(&self, rdev: Rdev) -> bool {
        self.majors.iter().any(|(major, _)| *major == rdev.major)
            || self.nodes.iter().any(|(known, _)| *known == rdev)
    }

    /// The references that one open file of `node` takes, at most, by module.
    ///
    /// From the sources of the open modules, 535 to 595: a character device costs its cdev's
    /// owner one and the owner of its file operations one; the dispatcher of old took one more
    /// on the module it passed the call to. On 535 one open nvidiactl is 3, on 550 it is 1, one
    /// open nvidia-uvm is 2 on both: measured.
    pub(crate) fn references<'a>(&self, kind: Kind, module: &'a str) -> Vec<(&'a str, u64)> {
        match kind {
            Kind::Gpu | Kind::Ctl if self.frontend => vec![(module, 3)],
            Kind::Gpu | Kind::Ctl => vec![(module, 1)],
            Kind::Modeset if self.frontend => vec![("nvidia", 2), (module, 1)],
            Kind::Modeset | Kind::DrmCard | Kind::DrmRender => vec![(module, 1)],
            Kind::Uvm
            | Kind::UvmTools
            | Kind::Caps
            | Kind::Nvswitch
            | Kind::Nvlink
            | Kind::Imex
            | Kind::Framebuffer
            | Kind::DmaBuf => vec![(module, 2)],
            // A module of others: two for the device and one that it may take itself.
            Kind::Other => vec![(module, 3)],
        }
    }

    #[cfg(test)]
    pub(crate) fn of_major(major: u32, name: &str) -> Self {
        let family = match name {
            "nvidia-uvm" => Family::Uvm,
            "nvidia" => Family::Main,
            name => Family::Other(name.to_owned(), "nvidia".to_owned()),
        };
        Self { majors: vec![(major, family)], nodes: Vec::new(), frontend: false }
    }

    #[cfg(test)]
    pub(crate) fn of_node(rdev: Rdev, node: Node) -> Self {
        Self { majors: Vec::new(), nodes: vec![(rdev, node)], frontend: false }
    }
}

impl Family {
    fn node(&self, minor: u32) -> Node {
        let (kind, name, module) = match self {
            Self::Main => match minor {
                MINOR_CTL => (Kind::Ctl, "nvidiactl".to_owned(), "nvidia"),
                MINOR_MODESET => (Kind::Modeset, "nvidia-modeset".to_owned(), "nvidia_modeset"),
                minor => (Kind::Gpu, format!("nvidia{minor}"), "nvidia"),
            },
            Self::Uvm => match minor {
                0 => (Kind::Uvm, "nvidia-uvm".to_owned(), "nvidia_uvm"),
                1 => (Kind::UvmTools, "nvidia-uvm-tools".to_owned(), "nvidia_uvm"),
                minor => (Kind::Uvm, format!("nvidia-uvm:{minor}"), "nvidia_uvm"),
            },
            Self::Caps => (Kind::Caps, format!("nvidia-cap{minor}"), "nvidia"),
            // The control node has the last minor (linux_nvswitch.h).
            Self::Nvswitch if minor == 255 => (Kind::Nvswitch, "nvidia-nvswitchctl".to_owned(), "nvidia"),
            Self::Nvswitch => (Kind::Nvswitch, format!("nvidia-nvswitch{minor}"), "nvidia"),
            Self::Nvlink => (Kind::Nvlink, "nvidia-nvlink".to_owned(), "nvidia"),
            Self::Imex => (Kind::Imex, format!("channel{minor}"), "nvidia"),
            Self::Other(name, module) => (Kind::Other, format!("{name}:{minor}"), module.as_str()),
        };
        Node { kind, name, module: module.to_owned() }
    }
}

/// What the name of a major stands for; `None` if it is not the driver's.
fn family(root: &Root, modules: &[Module], name: &str) -> Option<Family> {
    Some(match name {
        // 535 has one entry, later drivers one for each kind of node, all with major 195.
        "nvidia" | "nvidiactl" | "nvidia-modeset" | "nvidia-frontend" => Family::Main,
        "nvidia-uvm" => Family::Uvm,
        "nvidia-caps" => Family::Caps,
        "nvidia-nvswitch" => Family::Nvswitch,
        "nvidia-nvlink" => Family::Nvlink,
        "nvidia-caps-imex-channels" => Family::Imex,
        // A module of others, by the habit of naming the device after the module.
        other => {
            let module = other.replace('-', "_");
            let loaded = modules.iter().any(|known| known.name == module)
                || (other.starts_with("nvidia-") && root.path("/sys/module").join(&module).exists());
            if loaded {
                Family::Other(other.to_owned(), module)
            } else if other.starts_with("nvidia-") {
                Family::Other(other.to_owned(), "nvidia".to_owned())
            } else {
                return None;
            }
        }
    })
}

/// Every character device below a device that a driver of one of `modules` is bound to.
///
/// sysfs is not essential to the answer: what cannot be read here shows as unexplained later.
fn sysfs_nodes(root: &Root, modules: &[Module]) -> Vec<(Rdev, Node)> {
    let bound = bound_devices(root, modules);
    let mut nodes = Vec::new();
    for (number, place) in links(&root.path("/sys/dev/char")) {
        let Some((device, module)) =
            bound.iter().find(|(device, _)| place.starts_with(device) && place != *device)
        else {
            continue;
        };
        let Some(rdev) = number_of(&number) else { continue };
        let name = place.file_name().map(|name| escape(name.as_bytes())).unwrap_or_default();
        let class = place
            .strip_prefix(device)
            .ok()
            .and_then(|below| below.iter().next())
            .and_then(|class| class.to_str())
            .unwrap_or_default();
        let kind = match class {
            "drm" if name.starts_with("renderD") => Kind::DrmRender,
            "drm" if name.starts_with("card") || name.starts_with("controlD") => Kind::DrmCard,
            "graphics" => Kind::Framebuffer,
            _ => Kind::Other,
        };
        let drm = matches!(kind, Kind::DrmCard | Kind::DrmRender | Kind::Framebuffer);
        let module = match modules.iter().find(|module| module.name == "nvidia_drm") {
            // The PCI driver is nvidia's, the DRM device on top of it nvidia_drm's.
            Some(display) if drm && module == "nvidia" => display.name.clone(),
            _ => module.clone(),
        };
        nodes.push((rdev, Node { kind, name, module }));
    }
    nodes
}

/// The devices bound to drivers of `modules`, as paths below `/sys`, with the module.
fn bound_devices(root: &Root, modules: &[Module]) -> Vec<(PathBuf, String)> {
    let mut bound = Vec::new();
    for module in modules.iter().filter(|module| module.of_driver) {
        let drivers = root.path("/sys/module").join(&module.name).join("drivers");
        for entry in fs::read_dir(drivers).into_iter().flatten().flatten() {
            for (name, device) in links(&entry.path()) {
                if name != "module" && device.starts_with("devices") {
                    bound.push((device, module.name.clone()));
                }
            }
        }
    }
    bound
}

/// The driver's framebuffers, such as `fb0`.
pub(crate) fn framebuffers(root: &Root) -> Vec<String> {
    let Ok(modules) = refcounts(root) else { return Vec::new() };
    let bound = bound_devices(root, &modules);
    let mut names: Vec<String> = links(&root.path("/sys/class/graphics"))
        .filter(|(_, place)| bound.iter().any(|(device, _)| place.starts_with(device)))
        .map(|(name, _)| name)
        .collect();
    names.sort();
    names
}

/// The symbolic links of a directory of sysfs: name, and where it points below `/sys`. Such links
/// are relative and go up before they go down, so the text alone tells.
fn links(dir: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let place = target.iter().skip_while(|part| *part == "..").collect();
        Some((entry.file_name().into_string().ok()?, place))
    })
}

fn number_of(text: &str) -> Option<Rdev> {
    let (major, minor) = text.split_once(':')?;
    Some(Rdev { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn module(name: &str) -> Module {
        Module {
            name: name.to_owned(),
            refcount: Some(0),
            dependents: Vec::new(),
            of_driver: name.starts_with("nvidia"),
        }
    }

    fn machine(devices: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("proc")).expect("created");
        fs::write(dir.path().join("proc/devices"), devices).expect("written");
        dir
    }

    fn kind(table: &Table, major: u32, minor: u32) -> Option<(Kind, String, String)> {
        table.find(Rdev { major, minor }).map(|node| (node.kind, node.name, node.module))
    }

    fn named(kind: Kind, name: &str, module: &str) -> Option<(Kind, String, String)> {
        Some((kind, name.to_owned(), module.to_owned()))
    }

    const OF_535: &str = "Character devices:\n  1 mem\n195 nvidia-frontend\n226 drm\n\
        239 nvidia-nvswitch\n240 nvidia-nvlink\n241 nvidia-caps\n242 nvidia-uvm\n\n\
        Block devices:\n243 nvidia-not\n";

    #[test]
    fn numbers_of_535() {
        let dir = machine(OF_535);
        let table = Table::load(&Root::at(dir.path()), &[module("nvidia")]).expect("a table");
        assert_eq!(kind(&table, 195, 3), named(Kind::Gpu, "nvidia3", "nvidia"));
        assert_eq!(kind(&table, 195, 254), named(Kind::Modeset, "nvidia-modeset", "nvidia_modeset"));
        assert_eq!(kind(&table, 195, 255), named(Kind::Ctl, "nvidiactl", "nvidia"));
        assert_eq!(kind(&table, 242, 1), named(Kind::UvmTools, "nvidia-uvm-tools", "nvidia_uvm"));
        assert_eq!(kind(&table, 241, 2), named(Kind::Caps, "nvidia-cap2", "nvidia"));
        assert_eq!(kind(&table, 239, 255), named(Kind::Nvswitch, "nvidia-nvswitchctl", "nvidia"));
        assert_eq!(kind(&table, 1, 3), None);
        assert_eq!(kind(&table, 226, 0), None, "a DRM node of another driver");
        assert_eq!(kind(&table, 243, 0), None, "a block device");
        assert_eq!(table.references(Kind::Ctl, "nvidia"), [("nvidia", 3)]);
    }

    #[test]
    fn numbers_of_550_and_of_a_module_of_others() {
        let dir = machine(
            "Character devices:\n195 nvidia\n195 nvidia-modeset\n195 nvidiactl\n\
             236 gdrdrv\n237 nvidia-caps-imex-channels\n238 acme\n\nBlock devices:\n",
        );
        let modules = [module("nvidia"), module("gdrdrv")];
        let table = Table::load(&Root::at(dir.path()), &modules).expect("a table");
        assert_eq!(kind(&table, 195, 0), named(Kind::Gpu, "nvidia0", "nvidia"));
        assert_eq!(kind(&table, 236, 0), named(Kind::Other, "gdrdrv:0", "gdrdrv"));
        assert_eq!(kind(&table, 237, 7), named(Kind::Imex, "channel7", "nvidia"));
        assert_eq!(kind(&table, 238, 0), None);
        assert_eq!(table.references(Kind::Ctl, "nvidia"), [("nvidia", 1)]);
    }

    #[test]
    fn no_driver_no_devices() {
        let dir = machine(OF_535);
        let table = Table::load(&Root::at(dir.path()), &[]).expect("a table");
        assert_eq!(kind(&table, 195, 0), None);
    }

    #[test]
    fn nodes_of_bound_devices_only() {
        let dir = machine("Character devices:\n195 nvidia-frontend\n226 drm\n\nBlock devices:\n");
        let sys = dir.path().join("sys");
        let driver = sys.join("bus/pci/drivers/nvidia");
        let drivers = sys.join("module/nvidia/drivers");
        let char_devices = sys.join("dev/char");
        for made in [&driver, &drivers, &char_devices] {
            fs::create_dir_all(made).expect("created");
        }
        let gpu = "devices/pci0000:00/0000:00:05.0";
        for (link, target) in [
            (drivers.join("pci:nvidia"), "../../../bus/pci/drivers/nvidia".to_owned()),
            (driver.join("0000:00:05.0"), format!("../../../../{gpu}")),
            (driver.join("module"), "../../../../module/nvidia".to_owned()),
            (char_devices.join("226:0"), format!("../../{gpu}/drm/card0")),
            (char_devices.join("226:128"), format!("../../{gpu}/drm/renderD128")),
            (char_devices.join("29:0"), format!("../../{gpu}/graphics/fb0")),
            (char_devices.join("89:3"), format!("../../{gpu}/i2c-3/i2c-dev/i2c-3")),
            // The neighbour's path begins with the same letters.
            (char_devices.join("226:1"), format!("../../{gpu}1/drm/card1")),
        ] {
            symlink(target, link).expect("linked");
        }
        let modules = [module("nvidia"), module("nvidia_drm")];
        let table = Table::load(&Root::at(dir.path()), &modules).expect("a table");
        assert_eq!(kind(&table, 226, 0), named(Kind::DrmCard, "card0", "nvidia_drm"));
        assert_eq!(kind(&table, 226, 128), named(Kind::DrmRender, "renderD128", "nvidia_drm"));
        assert_eq!(kind(&table, 29, 0), named(Kind::Framebuffer, "fb0", "nvidia_drm"));
        assert_eq!(kind(&table, 89, 3), named(Kind::Other, "i2c-3", "nvidia"));
        assert_eq!(kind(&table, 226, 1), None);
    }

    proptest! {
        #[test]
        fn any_text_of_proc_devices_is_read(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            graph::in_devices(&text);
        }
    }
}
