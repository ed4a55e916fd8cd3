// SPDX-License-Identifier: MIT
//! Which files are the driver's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use modules::{Disk, File};
use step::Root;

use crate::dpkg::{self, Package};
use crate::manifest::Origin;
use crate::{damaged, installer, linker, rpm, tree};

/// Where firmware of one driver lies, below a directory named for its version.
const FIRMWARE: [&str; 2] = ["/lib/firmware/nvidia", "/lib/firmware/updates/nvidia"];

/// Where NVIDIA's programs are.
const PROGRAMS_IN: [&str; 2] = ["/usr/bin", "/usr/sbin"];

/// NVIDIA's programs that speak to the driver; their names say nothing of the version.
const PROGRAMS: [&str; 21] = [
    "nvidia-bug-report.sh",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-debugdump",
    "nvidia-fabricmanager-start.sh",
    "nvidia-gridd",
    "nvidia-imex",
    "nvidia-imex-ctl",
    "nvidia-modprobe",
    "nvidia-ngx-updater",
    "nvidia-pcc",
    "nvidia-persistenced",
    "nvidia-powerd",
    "nvidia-settings",
    "nvidia-sleep.sh",
    "nvidia-smi",
    "nvidia-topologyd",
    "nvidia-xconfig",
    "nv-fabricmanager",
    "nvlsm",
    "nvswitch-audit",
];

/// The subnet manager of NVLink, which Fabric Manager starts, has a folder of its own.
const NVLSM: &str = "/opt/nvidia/nvlsm";

/// Their units.
const UNITS_IN: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// See [`UNITS_IN`].
const UNITS: [&str; 10] = [
    "nvidia-fabricmanager.service",
    "nvidia-gridd.service",
    "nvidia-hibernate.service",
    "nvidia-imex.service",
    "nvidia-persistenced.service",
    "nvidia-powerd.service",
    "nvidia-resume.service",
    "nvidia-suspend.service",
    "nvidia-suspend-then-hibernate.service",
    "nvidia-topologyd.service",
];

/// What else is the driver's alone, as a file or a whole directory.
const OTHERS: [&str; 11] = [
    NVLSM,
    "/usr/lib/systemd/system-sleep/nvidia",
    "/usr/share/nvidia",
    "/usr/lib/nvidia",
    "/usr/share/vulkan/icd.d/nvidia_icd.json",
    // So Fedora and RHEL call it.
    "/usr/share/vulkan/icd.d/nvidia_icd.x86_64.json",
    "/usr/share/vulkan/icd.d/nvidia_icd.aarch64.json",
    "/usr/share/vulkansc/icd.d/nvidia_icd_vksc.json",
    "/usr/share/vulkan/implicit_layer.d/nvidia_layers.json",
    "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    "/usr/share/egl/egl_external_platform.d",
];

/// Libraries of the driver whose names do not end with its version.
const LIBRARIES: [&str; 2] = ["libnvidia-api.so.1", "libnvidia-nvvm70.so.4"];

/// What a package or the installer may have listed and a driver needs not to serve. What is below /etc
/// is the administrator's.
const LEFT_OUT: [&str; 8] = [
    "/etc/",
    "/usr/include/",
    "/usr/share/bug/",
    "/usr/share/doc/",
    "/usr/share/lintian/",
    "/usr/share/man/",
    "/usr/share/applications/",
    "/usr/src/",
];

/// The files of a driver.
#[derive(Debug)]
pub(crate) struct Driver {
    /// Its kernel modules.
    pub(crate) modules: Vec<File>,
    /// Its other regular files; true for those that dpkg or RPM owns, and replaces by a rename.
    pub(crate) files: BTreeMap<PathBuf, bool>,
    /// The links that lead to them, with what they say.
    pub(crate) links: BTreeMap<PathBuf, PathBuf>,
    /// How they were found.
    pub(crate) origin: Origin,
    /// The packages that they came from.
    pub(crate) packages: Vec<Package>,
}

/// The files of the driver `version` that is on disk; `loaded` are the files of what is loaded.
///
/// # Errors
/// The module index, a directory, the linker's configuration or a package database cannot be read.
pub(crate) fn collect(root: &Root, disk: &Disk, version: &str, loaded: Vec<File>) -> Result<Driver> {
    let mut modules = loaded;
    // Modules of this driver that are not loaded now may be by the time they are needed; one that is
    // installed later is saved when it is loaded. One that is damaged cannot be.
    for file in damaged::files(disk)?.0 {
        if file.version.as_deref() == Some(version) && modules.iter().all(|known| known.name != file.name) {
            modules.push(file);
        }
    }
    let mut tree = Tree { root, files: BTreeSet::new(), links: BTreeMap::new() };
    for path in FIRMWARE.iter().map(|directory| Path::new(directory).join(version)) {
        for file in tree::walk(root, &path)? {
            tree.add(&file)?;
        }
    }
    let directories = linker::directories(root)?;
    for directory in &directories {
        for path in tree::list(root, directory)? {
            let name = path.file_name().unwrap_or_default();
            let is_unversioned = name == "nvidia_drv.so" || LIBRARIES.iter().any(|known| name == *known);
            if linker::is_of(&path, version) || is_unversioned {
                tree.add(&path)?;
            }
        }
    }
    let named = PROGRAMS_IN.iter().flat_map(|directory| PROGRAMS.map(|name| Path::new(directory).join(name)));
    for path in named.chain([Path::new(NVLSM).join("sbin/nvlsm")]) {
        tree.add(&path)?;
    }
    // What else there is depends on where it came from.
    let by_installer = installer::installed(root, version)?;
    let (mut owned, mut by_rpm) = (BTreeSet::new(), Vec::new());
    let (mut origin, mut packages) = (Origin::Names, BTreeSet::new());
    if by_installer.iter().any(|path| tree.has(path)) {
        origin = Origin::Installer;
        for path in &by_installer {
            tree.add(path)?;
        }
    } else {
        for package in dpkg::owned(root, |path| tree.has(path))? {
            origin = Origin::Dpkg;
            packages.insert(package.name);
            for path in package.files {
                tree.add(&path)?;
                owned.insert(path);
            }
        }
    }
    if origin == Origin::Names {
        let known = tree.files.iter().chain(tree.links.keys()).cloned().collect();
        for package in rpm::owned(root, &known) {
            origin = Origin::Rpm;
            by_rpm.push(package.package);
            for (path, is_renamed) in package.files {
                tree.add(&path)?;
                if is_renamed {
                    owned.insert(rpm::plain(root, &path));
                }
            }
        }
    }
    if origin == Origin::Names {
        for path in UNITS_IN.iter().flat_map(|directory| UNITS.map(|name| Path::new(directory).join(name))) {
            tree.add(&path)?;
        }
        for other in OTHERS.map(Path::new) {
            tree.add(other)?;
            for path in tree::walk(root, other)? {
                tree.add(&path)?;
            }
        }
    } else if origin == Origin::Rpm {
        // What else these have is no driver's to run with: objects, and modules of other kernels.
        let mut files = BTreeSet::new();
        for path in modules.iter().filter_map(|file| below(root, &file.path)) {
            files.insert(tree::follow(root, &path)?.1.unwrap_or(path));
        }
        for package in rpm::owners(root, &files) {
            if !by_rpm.contains(&package) {
                by_rpm.push(package);
            }
        }
    } else if origin == Origin::Dpkg {
        // The modules were built from a package's source, and are no package's themselves.
        let source = |path: &Path| {
            path.starts_with("/usr/src")
                && path.to_string_lossy().starts_with("/usr/src/nvidia")
                && path.to_string_lossy().contains(version)
        };
        let files: Vec<PathBuf> = modules.iter().filter_map(|file| below(root, &file.path)).collect();
        let objects: BTreeSet<PathBuf> = files.iter().filter_map(|path| dpkg::objects(path)).collect();
        let module = |path: &Path| {
            files.iter().any(|file| file == path) || objects.iter().any(|folder| path.starts_with(folder))
        };
        let more = dpkg::owned(root, |path| source(path) || module(path))?;
        for package in more {
            owned.extend(package.files);
            packages.insert(package.name);
        }
    }
    for directory in &directories {
        for path in tree::list(root, directory)? {
            tree.add_links(&path)?;
        }
    }
    let files = tree.files.into_iter().map(|path| (path.clone(), owned.contains(&path))).collect();
    let mut packages = dpkg::versions(root, packages)?;
    packages.extend(by_rpm);
    Ok(Driver { modules, files, links: tree.links, origin, packages })
}

/// The path below `root` of a file that was found there.
pub(crate) fn below(root: &Root, path: &Path) -> Option<PathBuf> {
    let base = root.path("/");
    tree::plain(root, &Path::new("/").join(path.strip_prefix(base).ok()?))
}

/// What was found so far.
struct Tree<'a> {
    root: &'a Root,
    files: BTreeSet<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Tree<'_> {
    fn has(&self, path: &Path) -> bool {
        self.files.contains(path) || self.links.contains_key(path)
    }

    /// Adds what `path` is and what it leads to, if it is a file or a link to one.
    fn add(&mut self, path: &Path) -> Result<()> {
        let (links, Some(file)) = tree::follow(self.root, path)? else { return Ok(()) };
        let left_out =
            |path: &Path| LEFT_OUT.iter().any(|prefix| path.starts_with(prefix.trim_end_matches('/')));
        if !left_out(&file) {
            self.files.insert(file);
            self.links.extend(links);
        }
        Ok(())
    }

    /// Adds the link `path`, and those behind it, if they lead to a file that is there already.
    fn add_links(&mut self, path: &Path) -> Result<()> {
        if !std::fs::symlink_metadata(self.root.path(path)).is_ok_and(|data| data.is_symlink()) {
            return Ok(());
        }
        if let (links, Some(file)) = tree::follow(self.root, path)?
            && self.files.contains(&file)
        {
            self.links.extend(links);
        }
        Ok(())
    }
}
