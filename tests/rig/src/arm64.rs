// SPDX-License-Identifier: MIT
//! The packages for arm64: whether their programs are of that machine, start on each distribution, and do there what
//! amd64's do. QEMU's user mode runs them, on the libraries of Debian 12.

use std::process::Command;

use anyhow::{Context, Result, bail};
use object::elf;

use crate::cache::Cache;
use crate::checks::quiet;
use crate::command::{output_of, shown};
use crate::distributions;
use crate::progress::Work;
use crate::stages::{self, EMULATOR, checkout, workshop_arm64};

/// What the programs are asked, by their places in the package.
const QUESTIONS: &[&[&str]] = &[
    &["usr/sbin/nvidia-reload", "--version"],
    &["usr/sbin/nvidia-reload", "--help"],
    &["usr/sbin/nvidia-reload", "check"],
    &["usr/sbin/nvidia-reload", "check", "--json"],
    &["usr/sbin/nvidia-reload", "slots"],
    &["usr/libexec/nvidia-reload/preflight", "--help"],
    &["usr/libexec/nvidia-reload/modprobe-chain", "--help"],
];

/// The crates whose unit tests run: what reads module files, and the driver's messages in the kernel's log.
const TESTED: &[&str] = &["modules", "xid"];

/// The check.
pub fn check(cache: &Cache) -> Result<()> {
    let package = stages::package_arm64(cache)?.file_like("nvidia-reload_", ".deb")?;
    distributions::check(cache, &package, elf::EM_AARCH64)?;
    let native = stages::package(cache)?.context("this checkout has no debian/control")?;
    let native = native.file_like("nvidia-reload_", ".deb")?;
    let scratch = cache.scratch()?;
    let [theirs, ours] = ["arm64", "amd64"].map(|name| scratch.path().join(name));
    for (package, folder) in [(&package, &theirs), (&native, &ours)] {
        output_of(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
    }
    let workshop = workshop_arm64(cache)?;
    for question in QUESTIONS {
        let [program, arguments @ ..] = question else { bail!("a question has no program") };
        let mut emulated = workshop.command(&theirs, EMULATOR)?;
        emulated.arg(theirs.join(program));
        let mut native = workshop.command(&ours, "env")?;
        native.arg(ours.join(program));
        let theirs = answer(emulated.args(arguments))?;
        let ours = answer(native.args(arguments))?;
        if theirs != ours {
            bail!("`{}` says on arm64:\n{theirs}\nand on amd64:\n{ours}", question.join(" "));
        }
    }
    let checkout = checkout();
    let work = Work::start("testing crates on arm64".to_owned());
    workshop.fetch(&checkout, &work, &cache.log("arm64"))?;
    let mut tests = workshop.command(&checkout, "cargo")?;
    // All but the examples in documents: the host's rustdoc does not find the standard library for arm64.
    tests.args(["test", "--all-targets", "--quiet", "--locked", "--target-dir"]);
    tests.arg(cache.root().join("cargo-arm64"));
    for name in TESTED {
        tests.args(["--package", name]);
    }
    // Those measure how long a megabyte takes.
    tests.args(["--", "--skip", "fuzz::"]);
    quiet(&mut tests)?;
    work.done();
    Ok(())
}

/// How a program ended, and what it printed.
fn answer(command: &mut Command) -> Result<String> {
    let what = shown(command);
    let output = command.output().with_context(|| format!("cannot run {what}"))?;
    let [printed, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(format!("{printed}{errors}{}", output.status))
}
