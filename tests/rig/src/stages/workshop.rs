// SPDX-License-Identifier: MIT
//! Where the product is built: the machine's own Debian with what the package asks for, so that the
//! same package comes out on every host, and one that the machine can install. Rust is the host's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::mmdebstrap;
use super::tools;
use crate::apt;
use crate::cache::{Cache, Key};
use crate::command::{cargo, run_logged, without_cargo};
use crate::host::which;
use crate::progress::Work;
use crate::room::{ROOT, Room};

/// What the packages' control file and spec ask for, beside what every package is built with.
const PACKAGES: &str = "build-essential,debhelper,libkmod-dev,pkgconf,rpm";

/// The workshop.
pub struct Workshop<'a> {
    cache: &'a Cache,
    room: Room,
}

/// Sets it up.
pub fn workshop(cache: &Cache) -> Result<Workshop<'_>> {
    let key = Key::new("workshop 1").with(apt::SUITE).with(PACKAGES);
    let stage =
        cache.get("workshop", "the workshop that the package is made in", key, &[], |dir, work| {
            small_debian(cache, "workshop", PACKAGES, dir, work)
        })?;
    Ok(Workshop { cache, room: Room::in_stage(stage) })
}

/// Makes a small Debian with `packages` in `dir`, for the stage of this name.
pub(super) fn small_debian(
    cache: &Cache,
    stage: &str,
    packages: &str,
    dir: &Path,
    work: &Work,
) -> Result<()> {
    let scratch = cache.scratch()?;
    let sources = scratch.path().join("debian.sources");
    apt::write_sources(&sources, &[apt::SUITE])?;
    let mut build = mmdebstrap(cache, &tools(cache)?)?;
    build.args(["--format=directory", "--variant=essential"]).arg(format!("--include={packages}"));
    for folder in ["man", "locale", "doc"] {
        build.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    build.arg(apt::SUITE).arg(dir.join(ROOT)).arg(&sources);
    run_logged(&mut build, work, &cache.log(stage))
}

impl Workshop<'_> {
    /// Gets the crates that `source` asks for: inside, nothing reaches the network.
    pub fn fetch(&self, source: &Path, work: &Work, log: &Path) -> Result<()> {
        let mut fetch = cargo();
        fetch.args(["fetch", "--locked", "--target", "x86_64-unknown-linux-gnu"]).current_dir(source);
        run_logged(&mut fetch, work, log).context("cannot download the crates that the product is made of")
    }

    /// A program in the workshop, in the folder `source`, which is in the cache or this checkout.
    pub fn command(&self, source: &Path, program: &str) -> Result<Command> {
        let [rust, crates] = rust_folders()?;
        let mut command = self.room.inside(self.cache, &[&rust, &crates], "/usr/bin/env")?;
        command
            .arg("--chdir")
            .arg(std::fs::canonicalize(source)?)
            .arg(program)
            .env("PATH", format!("{}:/usr/sbin:/usr/bin", rust.join("bin").display()))
            .env("CARGO_HOME", &crates)
            .env("CARGO_NET_OFFLINE", "true");
        without_cargo(&mut command);
        Ok(command)
    }
}

/// The folder with Rust in it, and the one where cargo keeps the crates that it has downloaded.
pub fn rust_folders() -> Result<[PathBuf; 2]> {
    Ok([rust()?, crates()?])
}

/// The folder with Rust in it: cargo's own, since rustup's stand-ins look for others.
fn rust() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| which("cargo"));
    let cargo = cargo.context("there is no cargo in the PATH")?;
    let folder = cargo.ancestors().nth(2).context("cargo has no folder")?;
    if !folder.join("bin/rustc").exists() || !folder.join("lib/rustlib").exists() {
        bail!("there is no Rust in {}, where {} comes from", folder.display(), cargo.display());
    }
    if folder == Path::new("/usr") {
        bail!(
            "Rust is a package of this host: the rig builds in a Debian of its own, and needs Rust in a folder \
             of its own, as rustup (https://rustup.rs) installs it"
        );
    }
    Ok(folder.to_owned())
}

fn crates() -> Result<PathBuf> {
    let folder = match std::env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?)
            .join(".cargo"),
    };
    std::fs::canonicalize(&folder).with_context(|| format!("there is no {}", folder.display()))
}
