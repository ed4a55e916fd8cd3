// SPDX-License-Identifier: MIT
//! The driver's kernel modules: which are loaded, what holds them, which are on disk; how module loading is blocked
//! (the gate); the device nodes.

use anyhow::Context as _;

pub mod coherent;
mod declared;
mod disk;
pub mod gate;
mod kernels;
mod kmod;
mod load;
mod loaded;
mod managed;
mod manager;
pub mod nodes;
mod parameters;
mod reach;
mod readback;
mod remedy;
mod successors;
mod unload;
mod watched;

pub use declared::{Declared, Signature};
pub use disk::{Disk, File, Unreadable};
pub use graph::DRIVER;
pub use kernels::directory;
pub use kmod::Symbol;
pub use load::{Source, load};
pub use loaded::{
    Loaded, State, chain, driver_version, gpus, is_driver_version, is_hidden, loaded, on_bus, stuck,
};
pub use managed::managed_by_container;
pub use manager::Manager;
pub use parameters::{Changed, changed_parameters, parameters};
pub use reach::{Shadowed, cannot_unload, out_of_reach, shadowed};
pub use readback::differences;
pub use successors::successors;
pub use unload::{Unloaded, unload};
pub use watched::Stuck;

/// The release of the kernel that runs; of a fixture, what its `/proc` says.
///
/// # Errors
/// The kernel does not tell.
pub fn release(root: &step::Root) -> anyhow::Result<String> {
    if !root.is_system()
        && let Ok(release) = std::fs::read_to_string(root.path("/proc/sys/kernel/osrelease"))
    {
        return Ok(release.trim_end().to_owned());
    }
    let name = nix::sys::utsname::uname().context("ask the kernel for its release")?;
    Ok(name.release().to_string_lossy().into_owned())
}
