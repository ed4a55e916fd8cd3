//! The driver's kernel modules: which are loaded and who holds them, which are on disk; the gate that
//! keeps them out; the device nodes.

mod declared;
mod disk;
pub mod gate;
mod kmod;
mod load;
mod loaded;
pub mod nodes;
mod parameters;
mod readback;
mod successors;
mod unload;
mod watched;

pub use declared::{Declared, Signature};
pub use disk::{Disk, File, Unreadable};
pub use kmod::Symbol;
pub use load::{Source, load};
pub use loaded::{Loaded, State, chain, driver_version, gpus, loaded, on_bus, stuck};
pub use parameters::{Changed, changed_parameters, parameters};
pub use readback::differences;
pub use successors::successors;
pub use unload::{Unloaded, unload};
pub use watched::Stuck;

/// The module that all others of the driver hang on.
pub const DRIVER: &str = "nvidia";
