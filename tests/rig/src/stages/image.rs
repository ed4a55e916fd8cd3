// SPDX-License-Identifier: MIT
//! The disk image of the machine: Debian, the drivers, and the rig's own files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{DRIVERS, Distro, base, checkout, recipe};
use crate::apt::PrivateApt;
use crate::cache::{Cache, Key, Stage};
use crate::command::run_logged;
use crate::host::require_root;
use crate::machine::disk_in;
use crate::room::Room;

/// Of each driver's userland, what a compute server has. nvidia-modprobe and
/// nvidia-persistenced are not released with every driver: the suite's own.
const USERLAND: &[&str] = &["libnvidia-ml1", "libnvidia-cfg1", "nvidia-smi", "nvidia-open-kernel-support"];
const USERLAND_UNVERSIONED: &[&str] = &["nvidia-modprobe", "nvidia-persistenced"];

/// What dpkg wants beside them where they are installed as packages; of each driver, and the suite's own.
const NEEDED: &[&str] = &["nvidia-alternative", "nvidia-legacy-check"];
const NEEDED_UNVERSIONED: &[&str] = &[
    "glx-alternative-mesa",
    "glx-alternative-nvidia",
    "glx-diversions",
    "nvidia-installer-cleanup",
    "nvidia-kernel-common",
    "update-glx",
];

/// The packages of the userland of every driver.
pub fn userland(cache: &Cache) -> Result<Stage> {
    let mut key = Key::new("userland 2");
    for name in [USERLAND, USERLAND_UNVERSIONED, NEEDED, NEEDED_UNVERSIONED].concat() {
        key = key.with(name);
    }
    for driver in DRIVERS {
        key = key.with(driver.version).with(driver.suite);
    }
    cache.get("userland", "the drivers' userland", key, &[], |dir, work| {
        let log = cache.log("userland");
        let scratch = cache.scratch()?;
        let suites: Vec<&str> = DRIVERS.iter().map(|driver| driver.suite).collect();
        let apt = PrivateApt::set_up(scratch.path(), &suites, work, &log)?;
        for driver in DRIVERS {
            let folder = dir.join(driver.version);
            for (versioned, unversioned, folder) in [
                (USERLAND, USERLAND_UNVERSIONED, folder.clone()),
                (NEEDED, NEEDED_UNVERSIONED, folder.join("needed")),
            ] {
                let versioned = versioned.iter().map(|name| format!("{name}={}-*", driver.version));
                let unversioned = unversioned.iter().map(|name| format!("{name}/{}", driver.suite));
                let names: Vec<String> = versioned.chain(unversioned).collect();
                apt.download(&names, &folder, work, &log)?;
            }
        }
        Ok(())
    })
}

/// What the image is made of.
pub struct Parts<'a> {
    /// See [`super::kernel::packages`].
    pub kernel: &'a Stage,
    /// See [`super::kernel::nvidia_modules`].
    pub modules: &'a Stage,
    /// See [`super::kernel::fakegpu`].
    pub fakegpu: &'a Stage,
    /// See [`userland`].
    pub userland: &'a Stage,
    /// See [`base::root`].
    pub base: &'a Stage,
    /// QEMU and what goes with it.
    pub tools: &'a Room,
    /// What the base is of.
    pub distro: Distro,
}

/// The image: `disk.qcow2`, `vmlinuz`, `initrd`, the `key` that opens the
/// machine and the `known_hosts` that it is known by.
pub fn image(cache: &Cache, parts: &Parts<'_>) -> Result<Stage> {
    let guest = checkout().join("tests/guest");
    let mut key = Key::new("image 1");
    for part in [parts.kernel, parts.modules, parts.fakegpu, parts.userland, parts.base] {
        key = key.on(part);
    }
    for name in ["image.sh", "drivers.sh"] {
        key = key.with_files(&recipe(name))?;
    }
    let key = key.with_files(&guest)?;
    let what = format!("the disk of the machine with {} (about a minute)", parts.distro);
    cache.get(&parts.distro.stage("image"), &what, key, &[], |dir, work| {
        require_root()?;
        let log = cache.log(&parts.distro.stage("image"));
        let scratch = cache.scratch()?;
        let root = scratch.path().join("root");
        fs::create_dir(&root)?;
        let run = |command: &mut Command| run_logged(command, work, &log);

        run(parts
            .tools
            .inside(cache, &[], "tar")?
            .args(["--xattrs", "--xattrs-include=*", "--zstd", "-xf"])
            .arg(parts.base.file(base::ARCHIVE))
            .arg("-C")
            .arg(&root))?;
        let build = root.join("build");
        fs::create_dir(&build)?;
        let copy = |from: &Path, to: &str| run(Command::new("cp").arg("-rT").arg(from).arg(build.join(to)));
        copy(&parts.kernel.file("abi"), "abi")?;
        copy(parts.fakegpu.folder(), "fakegpu")?;
        copy(parts.modules.folder(), "modules")?;
        copy(parts.userland.folder(), "userland")?;
        copy(&guest, "guest")?;
        copy(&recipe(""), "recipes")?;

        let ssh_key = dir.join("key");
        run(parts
            .tools
            .command("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "rig", "-f"])
            .arg(&ssh_key))?;
        fs::copy(ssh_key.with_extension("pub"), build.join("key.pub"))?;
        run(Command::new("chroot")
            .arg(&root)
            .args(["/bin/sh", "/build/recipes/image.sh"])
            .args(DRIVERS.iter().map(|driver| driver.version))
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))?;

        let host_key = fs::read_to_string(root.join("etc/ssh/ssh_host_ed25519_key.pub"))?;
        fs::write(dir.join("known_hosts"), format!("rig {host_key}"))?;
        let abi = parts.kernel.read("abi")?;
        for (from, to) in [("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")] {
            fs::copy(root.join(format!("boot/{from}-{abi}")), dir.join(to))
                .with_context(|| format!("the root file system has no {from} for {abi}"))?;
        }

        let raw = scratch.path().join("disk.raw");
        fs::File::create(&raw)?.set_len(16 << 30)?;
        run(parts
            .tools
            .inside(cache, &[], "mkfs.ext4")?
            // All tables are written now, not by the guest's kernel while a
            // scenario measures something.
            .args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d"])
            .arg(&root)
            .arg(&raw))?;
        run(parts
            .tools
            .command("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .arg(&raw)
            .arg(disk_in(dir)))
    })
}
