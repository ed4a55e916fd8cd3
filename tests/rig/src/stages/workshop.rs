// SPDX-License-Identifier: MIT
//! Where the product is built: the machine's own Debian with what the package asks for, so that the
//! same package comes out on every host, and one that the machine can install. Rust is the host's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::mmdebstrap;
use super::{recipe, tools};
use crate::apt;
use crate::cache::{Cache, Key};
use crate::command::{cargo, run_logged, without_cargo};
use crate::host::which;
use crate::progress::Work;
use crate::room::{ROOT, Room};

/// What the packages' control file and spec ask for, beside what every package is built with.
const PACKAGES: &str = "build-essential,debhelper,libkmod-dev,pkgconf,rpm";
/// What is needed beside that for arm64.
const PACKAGES_ARM64: &str =
    "gcc-aarch64-linux-gnu,libc6-dev:arm64,libgcc-s1:arm64,libkmod-dev:arm64,qemu-user";

/// Rust's name for the host.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
const TARGET_ARM64: &str = "aarch64-unknown-linux-gnu";

/// Runs a program of arm64 in that workshop.
pub const EMULATOR: &str = "qemu-aarch64";

/// The workshop.
pub struct Workshop<'a> {
    cache: &'a Cache,
    room: Room,
    /// Rust's name for what it builds for.
    target: &'static str,
    /// The room of a Rust that is not the host's.
    rust: Option<Room>,
}

/// Sets it up.
pub fn workshop(cache: &Cache) -> Result<Workshop<'_>> {
    let key = Key::new("workshop 1").with(apt::SUITE).with(PACKAGES);
    let stage =
        cache.get("workshop", "the workshop that the package is made in", key, &[], |dir, work| {
            small_debian(cache, "workshop", &[], PACKAGES, dir, work)
        })?;
    Ok(Workshop { cache, room: Room::in_stage(stage), target: TARGET, rust: None })
}

/// Sets up the one for arm64: the same Debian with a compiler and the libraries of arm64, and with QEMU's user mode,
/// by which what is built runs. Rust's own library for arm64 is Debian testing's, with the rustc that it is of;
/// rustup's may not have it.
pub fn workshop_arm64(cache: &Cache) -> Result<Workshop<'_>> {
    let rust = Room::of_testing(
        cache,
        "rust-arm64",
        "a room for Rust's arm64",
        &["libstd-rust-dev", "libstd-rust-dev:arm64", "rustc"],
    )?;
    let packages = format!("{PACKAGES},{PACKAGES_ARM64}");
    let key = Key::new("workshop-arm64 1").with(apt::SUITE).with(&packages);
    let what = "the workshop that arm64's packages are made in";
    let stage = cache.get("workshop-arm64", what, key, &[], |dir, work| {
        small_debian(cache, "workshop-arm64", &["arm64"], &packages, dir, work)
    })?;
    Ok(Workshop { cache, room: Room::in_stage(stage), target: TARGET_ARM64, rust: Some(rust) })
}

/// Makes a small Debian with `packages` in `dir`, for the stage of this name; with packages of `foreign` architectures
/// among them.
pub(super) fn small_debian(
    cache: &Cache,
    stage: &str,
    foreign: &[&str],
    packages: &str,
    dir: &Path,
    work: &Work,
) -> Result<()> {
    let scratch = cache.scratch()?;
    let sources = scratch.path().join("debian.sources");
    apt::write_sources(&sources, &[apt::SUITE])?;
    let mut build = mmdebstrap(cache, &tools(cache)?)?;
    build.args(["--format=directory", "--variant=essential"]).arg(format!("--include={packages}"));
    if !foreign.is_empty() {
        build.arg(format!("--architectures=amd64,{}", foreign.join(",")));
    }
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
        fetch.args(["fetch", "--locked", "--target", self.target]).current_dir(source);
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
        if let Some(rust) = &self.rust {
            command
                .env("RUSTC", std::fs::canonicalize(recipe("rustc.sh"))?)
                .env("RUST", rust.root())
                .env("CARGO_BUILD_TARGET", self.target)
                .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
                .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", EMULATOR)
                .env("TARGET_RUNNER", EMULATOR);
        }
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
