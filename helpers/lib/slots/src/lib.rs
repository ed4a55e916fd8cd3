// SPDX-License-Identifier: MIT
//! Slots: saved, complete copies of drivers, for rollback.
//!
//! An upgrade replaces the files of the loaded driver. If the new driver does not load or does not verify, the previous
//! one can work again only with its own files. So whenever the loaded driver and the one on disk match, all of it is
//! saved: kernel modules, firmware, libraries and programs. Two drivers are saved, each for the kernels under which it
//! was loaded last; these share what is not a module.
//!
//! A slot is a directory named after the version (and the kernel, if there are several) with a [`Manifest`] that holds a
//! checksum of each file. A file that does not match its checksum is corrupt, and the slot is not used.

#![forbid(unsafe_code)]

mod attributes;
mod collect;
mod damaged;
mod dpkg;
mod healed;
mod installer;
mod linker;
mod lock;
mod manifest;
mod note;
mod place;
mod room;
mod rpm;
mod save;
mod slot;
mod store;

#[cfg(test)]
mod tests;
mod tree;

pub use damaged::find;
pub use dpkg::Package;
pub use healed::{Healed, end, heal, lacks};
pub use linker::version_on_disk;
pub use lock::{lock_for_run, lock_to_save};
pub use manifest::{Entry, Manifest, Origin, SavedFile, SavedLink, SavedModule};
pub use note::{Note, sentence};
pub use place::{Placed, on_disk, put_in_place, sync};
pub use room::Short;
pub use save::save;
pub use slot::{Slot, Unusable, all, library_in_slot, slots, untrusted};

/// Below the ledger's directory.
pub const DIRECTORY: &str = "/var/lib/nvidia-reload/slots";

/// Where the libraries of a driver lie that `heal` puts before those on disk: a folder for each word size, and what CDI
/// specifications were.
pub const HEALED: &str = "/var/lib/nvidia-reload/healed";
