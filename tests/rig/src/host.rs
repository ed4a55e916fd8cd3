// SPDX-License-Identifier: MIT
//! What the rig asks of this host. It brings its own tools and builds in a Debian of its own (see
//! `room`); only the checks of the code and the measurement run programs of the host. These may be
//! installed: nothing on the host is ever removed, replaced or upgraded for it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::command::{output_of, tie};
use crate::progress::note;

/// A package, and a file that proves it is there however it got there.
pub struct Need {
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

/// What it takes to check the code: it is compiled and tested on the host.
pub const TO_CHECK: &[Need] = &[
    command("gcc", "cc"),
    // Holds a record lock in a unit test: a process of its own has to.
    command("python3", "python3"),
    command("pkgconf", "pkg-config"),
    Need { package: "libkmod-dev", proof: Proof::File("/usr/include/libkmod.h") },
];

/// What `cargo rig bench` compares the search for holders with.
pub const TO_BENCH: &[Need] = &[command("psmisc", "fuser"), command("lsof", "lsof")];

/// Makes sure that all of these are there.
pub fn provide(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> =
        needs.iter().filter(|need| !is_there(&need.proof)).map(|need| need.package).collect();
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
    // A fresh machine has no package lists, an old one has stale lists: only
    // then is an update worth its time.
    if install(&missing)?.is_err() {
        apt_get(&["update"]).context("apt-get update failed")?;
        install(&missing)??;
    }
    let still: Vec<&str> =
        needs.iter().filter(|need| !is_there(&need.proof)).map(|need| need.package).collect();
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

/// Installs packages, if that is all that apt would do; the inner error says what apt cannot or may
/// not do, and then nothing was done.
fn install(packages: &[&str]) -> Result<Result<()>> {
    let mut simulation = Command::new("apt-get");
    simulation.args(["--quiet", "--simulate", "--no-install-recommends", "install"]).args(packages);
    let simulated = match output_of(&mut simulation) {
        Ok(simulated) => simulated,
        Err(error) => return Ok(Err(error)),
    };
    let list = packages.join(" ");
    let harm = harm_in(&simulated);
    if !harm.is_empty() {
        return Ok(Err(anyhow::anyhow!(
            "this host lacks: {list}\n\
             To install that, apt would change what is installed already, which the rig never does: {}\n\
             If that is fine with you: apt-get install --no-install-recommends {list}",
            harm.join(", ")
        )));
    }
    note(format!("installing on this host, with apt: {list}"));
    let mut arguments = vec!["install", "--yes", "--no-remove", "--no-install-recommends"];
    arguments.extend(packages);
    apt_get(&arguments).map(Ok)
}

/// What a simulated run of apt would do to packages that are there: `Remv NAME [VERSION]`, and `Inst
/// NAME [VERSION] (NEW …)`, which a new package has without the version in brackets.
fn harm_in(simulated: &str) -> Vec<String> {
    let mut harm = Vec::new();
    for line in simulated.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("Remv" | "Purg"), Some(name), _) => harm.push(format!("{name} (removed)")),
            (Some("Inst"), Some(name), Some(third)) if third.starts_with('[') => {
                let new = words.next().unwrap_or_default().trim_start_matches('(');
                harm.push(format!("{name} ({} by {new})", third.trim_matches(['[', ']'])));
            }
            _ => {}
        }
    }
    harm
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_would_change_is_seen() {
        // As apt 2.6 has it, where qemu-utils is of backports and perl an older one.
        let simulated = "Reading package lists...\n\
            Remv qemu-utils [1:10.0.2+ds-2+deb13u1~bpo12+1]\n\
            Inst perl [5.36.0-7+deb12u2] (5.36.0-7+deb12u3 Debian:12.15/oldstable [amd64]) []\n\
            Inst seabios (1.16.2-1 Debian:12.15/oldstable [all])\n\
            Inst qemu-system-x86 (1:7.2+dfsg-7+deb12u18 Debian:12.15/oldstable [amd64])\n\
            Conf seabios (1.16.2-1 Debian:12.15/oldstable [all])\n";
        assert_eq!(
            harm_in(simulated),
            ["qemu-utils (removed)", "perl (5.36.0-7+deb12u2 by 5.36.0-7+deb12u3)"]
        );
        assert!(
            harm_in("Inst libkmod-dev (30 Debian:12 [amd64])\nConf libkmod-dev (30 Debian:12 [amd64])\n")
                .is_empty()
        );
    }
}
