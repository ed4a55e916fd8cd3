//! What the machine is built from, each part in a stage of the cache:
//!
//! kernel → modules, fakegpu ─┐
//!   └────→ base ─────────────┼→ image → booted → prepared
//!          userland ─────────┘                   (package, hold, nvml-sim)

mod base;
mod boot;
mod distro;
mod image;
mod kernel;
mod package;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::accel::{self, Accel};
use crate::cache::{Cache, Stage};
use crate::machine::Spec;

pub use boot::into;
pub use distro::Distro;
pub use package::{hold, package};

/// The drivers of the machine, and the suite that has each. The first is the
/// one that is on disk and loaded unless another is asked for.
pub const DRIVERS: &[Driver] =
    &[Driver { version: "535.261.03", suite: "bookworm" }, Driver { version: "550.163.01", suite: "trixie" }];

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
    /// Distribution, GPUs and driver to start with.
    pub spec: &'a Spec,
}

/// Builds what is missing for this machine.
pub fn provide(cache: &Cache, content: &Content<'_>) -> Result<Built> {
    let kernel = kernel::packages(cache)?;
    let modules = kernel::nvidia_modules(cache, &kernel)?;
    let fakegpu = kernel::fakegpu(cache, &kernel)?;
    let userland = image::userland(cache)?;
    let base = base::root(cache, &kernel, content.spec.distro)?;
    let image = image::image(
        cache,
        &image::Parts {
            kernel: &kernel,
            modules: &modules,
            fakegpu: &fakegpu,
            userland: &userland,
            base: &base,
            distro: content.spec.distro,
        },
    )?;
    let accel = accel::choose(cache, &image.file("vmlinuz"))?;
    let booted = boot::booted(cache, &image, content.spec, &accel)?;
    let hold = hold(cache)?;
    let kubelet_sim = package::kubelet_sim(cache)?;
    let nvml_sim = package::nvml_sim(cache)?;
    let product = if content.with_package { package::package(cache)? } else { None };
    let parts = boot::Parts {
        image: &image,
        booted: &booted,
        hold: &hold,
        kubelet_sim: &kubelet_sim,
        nvml_sim: &nvml_sim,
        product: product.as_ref(),
    };
    let frozen = boot::prepared(cache, &parts, content.spec, &accel)?;
    Ok(Built { image, frozen, accel })
}

/// The checkout that the rig was built from.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files of the rig that go into the machine, or are run to make it.
fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(name)
}
