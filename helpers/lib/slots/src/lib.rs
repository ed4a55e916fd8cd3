// SPDX-License-Identifier: MIT
//! Whole drivers kept for the way back.
//!
//! An upgrade replaces the files of the driver that is loaded. Should the new one not load or not
//! verify, the old one can serve again only if somebody kept its files: so whenever the loaded driver
//! and the one on disk are the same, all that belongs to it is kept aside, its kernel modules, its
//! firmware, its libraries and programs. Two drivers are kept, each for the kernels that it was loaded under
//! last; those share what is no module.
//!
//! A slot is a directory named for the version, and where there are several for the kernel, with a [`Manifest`] that holds a checksum of every
//! file. What does not match its checksum is spoiled, and no way back.

#![forbid(unsafe_code)]

mod attributes;
mod collect;
mod damaged;
mod dpkg;
mod healed;
mod installer;
mod keep;
mod linker;
mod lock;
mod manifest;
mod note;
mod place;
mod room;
mod rpm;
mod slot;
mod store;
#[cfg(test)]
mod tests;
mod tree;

pub use damaged::find;
pub use dpkg::Package;
pub use healed::{HEALED, Healed, end, heal, lacks};
pub use keep::keep;
pub use linker::version_on_disk;
pub use lock::{lock_for_run, lock_to_save};
pub use manifest::{Entry, KeptFile, KeptLink, KeptModule, Manifest, Origin};
pub use note::{Note, sentence};
pub use place::{Placed, on_disk, put_in_place, sync};
pub use room::Short;
pub use slot::{Slot, Unusable, all, kept_library, slots, untrusted};

/// Below the ledger's directory.
pub const DIRECTORY: &str = "/var/lib/nvidia-reload/slots";
