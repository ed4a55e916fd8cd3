//! What the rig needs on this host, and how it gets it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::command::tie;
use crate::progress::note;

/// A package, and a file that proves it is there however it got there.
struct Need {
    package: &'static str,
    proof: Proof,
}

enum Proof {
    Command(&'static str),
    File(&'static str),
}

const fn command(package: &'static str, name: &'static str) -> Need {
    Need { package, proof: Proof::Command(name) }
}

/// What it takes to run the machine.
const TO_RUN: &[Need] = &[
    command("qemu-system-x86", "qemu-system-x86_64"),
    command("qemu-utils", "qemu-img"),
    command("openssh-client", "ssh"),
    command("zstd", "zstd"),
    command("tar", "tar"),
];

/// What it takes to build the machine.
const TO_BUILD: &[Need] = &[
    command("mmdebstrap", "mmdebstrap"),
    command("e2fsprogs", "mkfs.ext4"),
    Need {
        package: "debian-archive-keyring",
        proof: Proof::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
    },
];

/// What it takes to build and check the product.
const TO_PACKAGE: &[Need] = &[
    command("build-essential", "cc"),
    command("dpkg-dev", "dpkg-buildpackage"),
    command("debhelper", "dh"),
    command("lintian", "lintian"),
    // Holds a record lock in a unit test: a process of its own has to.
    command("python3", "python3"),
    command("pkgconf", "pkg-config"),
    // What `cargo rig bench` compares the search for holders with.
    command("psmisc", "fuser"),
    command("lsof", "lsof"),
    Need { package: "libkmod-dev", proof: Proof::File("/usr/include/libkmod.h") },
];

/// Makes sure that all that the rig uses is installed.
pub fn provide() -> Result<()> {
    let missing: Vec<&str> = [TO_RUN, TO_BUILD, TO_PACKAGE]
        .into_iter()
        .flatten()
        .filter(|need| !is_there(&need.proof))
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if which("apt-get").is_none() {
        bail!(
            "this host lacks what these Debian packages bring: {list}\n\
             There is no apt-get here: install them by other means, then run this again."
        );
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "this host lacks: {list}\n\
             Run this as root, or first: sudo apt-get install {list}"
        );
    }
    note(format!("installing on this host, with apt: {list}"));
    // A fresh machine has no package lists, an old one has stale lists: only
    // then is an update worth its time.
    if install(&missing).is_err() {
        apt_get(&["update"]).context("apt-get update failed")?;
        install(&missing).with_context(|| format!("cannot install {list}"))?;
    }
    let still: Vec<&str> = [TO_RUN, TO_BUILD, TO_PACKAGE]
        .into_iter()
        .flatten()
        .filter(|need| !is_there(&need.proof))
        .map(|need| need.package)
        .collect();
    if !still.is_empty() {
        bail!("installed, and yet not usable: {}", still.join(" "));
    }
    Ok(())
}

/// Building takes root: chroots, device nodes, ownership.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the machine is not built yet, and building it takes root: run this with sudo");
    }
    Ok(())
}

/// Where a command is, as the shell would find it.
pub fn which(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        // Debian's ordinary users have no sbin in their PATH.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn is_there(proof: &Proof) -> bool {
    match proof {
        Proof::Command(name) => which(name).is_some(),
        Proof::File(path) => Path::new(path).exists(),
    }
}

fn install(packages: &[&str]) -> Result<()> {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    apt_get(&arguments)
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["--quiet", "-o", "DPkg::Lock::Timeout=600"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        // Standard output is the scenario's.
        .stdout(std::io::stderr());
    let status = tie(&mut apt, Signal::SIGTERM).status().context("cannot run apt-get")?;
    if !status.success() {
        bail!("apt-get {}: {status}", arguments[0]);
    }
    Ok(())
}
