// SPDX-License-Identifier: MIT
//! What is built from this checkout: the product's packages, one for dpkg and one for rpm with the same
//! programs, and for the machine `hold`, and the simulations of NVML and of a kubelet.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::checkout;
use super::workshop::{TARGET, Workshop, workshop, workshop_arm64};
use crate::cache::{Cache, Key, Stage, files_under};
use crate::command::run_logged;
use crate::progress::Work;

/// What the package is made from.
const SOURCES: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "Makefile",
    "debian",
    "docs/man",
    "dracut",
    "fleet",
    "helpers",
    "packaging",
    "rpm",
    "targets",
    "units",
];

/// What the simulation of NVML is made of: the library and the program.
pub const NVML_SIM: [&str; 2] = ["libnvml_sim.so", "nvml-sim"];

/// The product's packages, or none where the checkout has no debian/control.
pub fn package(cache: &Cache) -> Result<Option<Stage>> {
    let Some(key) = key("package 4")? else {
        crate::progress::note("this checkout has no debian/control: the machine goes without nvidia-reload");
        return Ok(None);
    };
    let stage = cache.get("package", "the packages", key, &[], |dir, work| {
        build(cache, &workshop(cache)?, &FOR_THIS, dir, work)
    })?;
    Ok(Some(stage))
}

/// The same for arm64.
pub fn package_arm64(cache: &Cache) -> Result<Stage> {
    let key = key("package-arm64 2")?.context("this checkout has no debian/control")?;
    cache.get(FOR_ARM64.stage, "the packages for arm64", key, &[], |dir, work| {
        build(cache, &workshop_arm64(cache)?, &FOR_ARM64, dir, work)
    })
}

fn key(recipe: &str) -> Result<Option<Key>> {
    let checkout = checkout();
    if !checkout.join("debian/control").exists() {
        return Ok(None);
    }
    let mut key = Key::new(recipe);
    for name in SOURCES {
        let path = checkout.join(name);
        if path.exists() {
            key = key.with(name).with_files(&path)?;
        }
    }
    Ok(Some(key))
}

/// How packages are built for one architecture.
struct For {
    stage: &'static str,
    /// For dpkg-buildpackage. What the control file asks for is there; with another architecture it looks for
    /// `crossbuild-essential`, which has a C++ compiler, too.
    dpkg: &'static [&'static str],
    /// For rpmbuild.
    rpm: &'static [&'static str],
}

const FOR_THIS: For = For { stage: "package", dpkg: &[], rpm: &[] };
const FOR_ARM64: For =
    For { stage: "package-arm64", dpkg: &["-d", "-a", "arm64"], rpm: &["--target", "aarch64"] };

/// Sets what debhelper sets, and starts rpmbuild.
const AS_DEBHELPER: &str = r#"
flags=$(dpkg-buildflags --export=sh)
eval "$flags"
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog --show-field Timestamp)
export SOURCE_DATE_EPOCH
exec rpmbuild "$@"
"#;

fn build(cache: &Cache, workshop: &Workshop<'_>, of: &For, dir: &Path, work: &Work) -> Result<()> {
    let log = cache.log(of.stage);
    // A copy: dpkg-buildpackage writes into the source and beside it. Always in the same place:
    // to cargo a checkout elsewhere is another program, to be built again.
    let scratch = cache.root().join(format!("{}-source", of.stage));
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    let source = scratch.join("nvidia-reload");
    fs::create_dir_all(&source)?;
    let mut copy = Command::new("cp");
    copy.arg("-a").arg("-t").arg(&source);
    for entry in fs::read_dir(checkout())? {
        let entry = entry?;
        if !matches!(entry.file_name().to_str(), Some("target" | ".git")) {
            copy.arg(entry.path());
        }
    }
    run_logged(&mut copy, work, &log)?;
    // cargo goes by times: what was edited while the last copy was compiled is older than what came of it.
    let [before, now] =
        ["copied", "copied.new"].map(|name| cache.root().join(format!("{}-{name}", of.stage)));
    fs::write(&now, "")?;
    let mut refresh = Command::new("find");
    refresh.arg(&source).args(["-type", "f"]);
    if before.exists() {
        refresh.arg("-newer").arg(&before);
    }
    run_logged(refresh.args(["-exec", "touch", "{}", "+"]), work, &log)?;
    fs::rename(&now, &before)?;
    workshop.fetch(&source, work, &log)?;
    let target = cache.root().join(format!("cargo-{}", of.stage));
    run_logged(
        workshop
            .command(&source, "dpkg-buildpackage")?
            .args(["-b", "-us", "-uc", "-nc"])
            .args(of.dpkg)
            .env("CARGO_TARGET_DIR", &target),
        work,
        &log,
    )?;
    // With what debhelper sets for C compilers, cargo has nothing left to do. What the spec asks for is there by
    // Debian's names.
    run_logged(
        workshop
            .command(&source, "sh")?
            .args(["-euc", AS_DEBHELPER, "rpmbuild"])
            .args(["-bb", "--build-in-place", "--nodeps"])
            .args(of.rpm)
            .arg("--define")
            .arg(format!("_topdir {}", scratch.join("rpmbuild").display()))
            .arg("--define")
            .arg(format!("_rpmdir {}", scratch.display()))
            .args(["--define", "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"])
            .arg("rpm/nvidia-reload.spec")
            .env("CARGO_TARGET_DIR", &target),
        work,
        &log,
    )?;
    for file in files_under_flat(&scratch)? {
        fs::rename(&file, dir.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// The packages for people, put into a folder; what is there by the same name is replaced.
pub fn leave_packages(cache: &Cache, folder: &Path, with_arm64: bool) -> Result<Vec<PathBuf>> {
    let mut products = vec![package(cache)?.context("this checkout has no debian/control")?];
    if with_arm64 {
        products.push(package_arm64(cache)?);
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut left = Vec::new();
    for product in products {
        for (start, end) in [("nvidia-reload_", ".deb"), ("nvidia-reload-", ".rpm")] {
            let from = product.file_like(start, end)?;
            let to = folder.join(from.file_name().unwrap_or_default());
            fs::copy(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
            left.push(to);
        }
    }
    Ok(left)
}

/// The packages to install: no debug symbols.
pub fn installed_packages(product: &Stage) -> Result<Vec<OsString>> {
    Ok(files_under(product.folder())?
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "deb"))
        .filter_map(|file| file.file_name())
        .filter(|name| !name.to_string_lossy().contains("-dbgsym_"))
        .map(OsString::from)
        .collect())
}

/// The static program that holds a device.
pub fn hold(cache: &Cache) -> Result<Stage> {
    program(cache, "hold", Key::new("hold 1").with_files(&checkout().join("tests/hold"))?)
}

/// What only scenarios use.
pub struct StandIns {
    /// See [`kubelet_sim`].
    pub kubelet_sim: Stage,
    /// See [`nvml_sim`].
    pub nvml_sim: Stage,
}

/// All of them.
pub fn stand_ins(cache: &Cache) -> Result<StandIns> {
    Ok(StandIns { kubelet_sim: kubelet_sim(cache)?, nvml_sim: nvml_sim(cache)? })
}

/// The stand-in for a kubelet.
fn kubelet_sim(cache: &Cache) -> Result<Stage> {
    let key = Key::new("kubelet-sim 1")
        .with_files(&checkout().join("tests/kubelet-sim"))?
        .with_files(&checkout().join("helpers/lib/cri"))?;
    program(cache, "kubelet-sim", key)
}

/// A static program of the tests.
fn program(cache: &Cache, name: &'static str, key: Key) -> Result<Stage> {
    cache.get(name, &format!("the program {name}"), key, &[], |dir, work| {
        // A target folder of its own: the flags would otherwise rebuild all
        // that is in the shared one, back and forth.
        let target = cache.root().join("cargo-hold");
        let log = cache.log(name);
        let workshop = workshop(cache)?;
        workshop.fetch(&checkout(), work, &log)?;
        run_logged(
            workshop
                .command(&checkout(), "cargo")?
                .args(["build", "--release", "--package", name, "--target", TARGET, "--target-dir"])
                .arg(&target)
                .env("RUSTFLAGS", "-C target-feature=+crt-static"),
            work,
            &log,
        )?;
        fs::copy(target.join(TARGET).join("release").join(name), dir.join(name))
            .with_context(|| format!("cargo built no {name}"))?;
        Ok(())
    })
}

/// The simulation of NVML: the library, and the program that installs it.
fn nvml_sim(cache: &Cache) -> Result<Stage> {
    let source = checkout().join("tests/nvml-sim");
    let key = Key::new("nvml-sim 1").with_files(&source)?;
    cache.get("nvml-sim", "the simulation of NVML", key, &[], |dir, work| {
        // Not static as `hold` is: NVML's callers bring the machine's own libc.
        let target = cache.root().join("cargo-nvml-sim");
        let log = cache.log("nvml-sim");
        let workshop = workshop(cache)?;
        workshop.fetch(&checkout(), work, &log)?;
        run_logged(
            workshop
                .command(&checkout(), "cargo")?
                .args(["build", "--release", "--package", "nvml-sim", "--target-dir"])
                .arg(&target),
            work,
            &log,
        )?;
        for file in NVML_SIM {
            fs::copy(target.join("release").join(file), dir.join(file))
                .with_context(|| format!("cargo built no {file}"))?;
        }
        Ok(())
    })
}

fn files_under_flat(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}
