//! The driver's kernel modules: which are loaded and who holds them, which are on disk, which are
//! kept for the way back; the gate that keeps them out; the device nodes.

mod disk;
pub mod gate;
mod kmod;
mod load;
mod loaded;
pub mod nodes;
mod readback;
mod slots;
mod unload;

pub use disk::{Disk, File};
pub use load::{Source, load};
pub use loaded::{Loaded, State, chain, driver_version, gpus, loaded, on_bus, parameters};
pub use readback::differences;
pub use slots::{Slot, keep, kept_library, slots};
pub use unload::{Unloaded, unload};

/// The module that all others of the driver hang on.
pub const DRIVER: &str = "nvidia";
