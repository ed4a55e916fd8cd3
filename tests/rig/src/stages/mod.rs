// SPDX-License-Identifier: MIT
//! What the machine is built from, each part in a stage of the cache:
//!
//! kernel → modules, fakegpu ─┐
//!   └────→ base ─────────────┼→ image → booted → prepared
//!          userland ─────────┘                      │
//! workshop → package, hold, kubelet-sim, nvml-sim ──┘
//!
//! All by the tools, which are the rig's own; what does not stand on another is made side by side.

mod base;
mod boot;
mod deny;
mod distro;
mod image;
mod kernel;
mod managers;
mod package;
mod workshop;

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Result;

use crate::accel::{self, Accel};
use crate::cache::{Cache, Stage};
use crate::machine::Spec;
use crate::room::Room;

pub use base::NotToday;
pub use boot::into;
pub use deny::deny;
pub use distro::Distro;
pub use kernel::mmdebstrap;
pub use managers::package_managers;
pub use package::{hold, leave_packages, package, package_arm64};
pub use workshop::{EMULATOR, rust_folders, workshop_arm64};

/// The drivers of the machine, and the suite that has each. The first is the
/// one that is on disk and loaded unless another is asked for.
pub const DRIVERS: [Driver; 2] =
    [Driver { version: "535.261.03", suite: "bookworm" }, Driver { version: "550.163.01", suite: "trixie" }];

/// A version of NVIDIA's driver in Debian's archive.
pub struct Driver {
    /// The upstream version.
    pub version: &'static str,
    suite: &'static str,
}

/// All it takes to start the machine.
pub struct Built {
    /// The root file system, and how to reach the machine that runs it.
    pub image: Stage,
    /// The machine as it was frozen: disk and state.
    pub frozen: Stage,
    /// How it runs on this host.
    pub accel: Accel,
}

/// What goes into the machine besides the drivers.
pub struct Content<'a> {
    /// Install the product's package in it.
    pub with_package: bool,
    /// Have the stand-ins there that scenarios ask for.
    pub with_stand_ins: bool,
    /// Distribution, GPUs and driver to start with.
    pub spec: &'a Spec,
}

/// QEMU, and what else the rig runs to make the machine and to reach it.
pub fn tools(cache: &Cache) -> Result<Room> {
    const PACKAGES: &[&str] = &[
        "debian-archive-keyring",
        "e2fsprogs",
        "mmdebstrap",
        "openssh-client",
        "qemu-system-x86",
        "qemu-utils",
        "zstd",
    ];
    Room::unpacked(cache, "tools", "the rig's tools, QEMU among them", PACKAGES)
}

/// Builds what is missing for this machine.
pub fn provide(cache: &Cache, content: &Content<'_>) -> Result<Built> {
    let spec = content.spec;
    // Before there are several to make it.
    cache.scratch_root()?;
    let tools = tools(cache)?;
    let which = spec.distro.kernel();
    let kernel = kernel::packages(cache, which)?;
    // Each command of a build dies with the thread that has started it: these live until it is done.
    thread::scope(|scope| {
        let ours = scope.spawn(|| {
            let hold = hold(cache)?;
            let product = if content.with_package { package(cache)? } else { None };
            let stand_ins = content.with_stand_ins.then(|| package::stand_ins(cache)).transpose()?;
            anyhow::Ok((hold, product, stand_ins))
        });
        let base = scope.spawn(|| {
            let userland = image::userland(cache)?;
            anyhow::Ok((userland, base::root(cache, &tools, &kernel, spec.distro)?))
        });
        let modules = kernel::nvidia_modules(cache, &tools, which, &kernel);
        let fakegpu = kernel::fakegpu(cache, &tools, which, &kernel);
        let (userland, base) = joined(base)?;
        let image = image::image(
            cache,
            &image::Parts {
                kernel: &kernel,
                modules: &modules?,
                fakegpu: &fakegpu?,
                userland: &userland,
                base: &base,
                tools: &tools,
                distro: spec.distro,
            },
        )?;
        let accel = accel::choose(cache, &tools, &image.file("vmlinuz"))?;
        let booted = boot::booted(cache, &image, spec, &accel)?;
        let (hold, product, stand_ins) = joined(ours)?;
        let parts = boot::Parts {
            image: &image,
            booted: &booted,
            hold: &hold,
            stand_ins: stand_ins.as_ref(),
            product: product.as_ref(),
        };
        let frozen = boot::prepared(cache, &parts, spec, &accel)?;
        Ok(Built { image, frozen, accel })
    })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The checkout that the rig was built from.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files of the rig that go into the machine, or are run to make it.
pub fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(name)
}
