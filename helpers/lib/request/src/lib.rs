// SPDX-License-Identifier: MIT
//! A reload that was requested, usually by a package, and that waits until the GPUs are idle.
//!
//! It is one file in `/run`: a reboot loads the driver on disk, so it drops the request, too. `nvidia-reload request`
//! writes it and starts [`UNIT`], which waits and starts the reload; every command can read it.

#![forbid(unsafe_code)]

#[cfg(test)]
mod fuzz;
mod packages;
mod record;
mod store;

pub use packages::{Busy, package_manager, wait_for_packages};
pub use record::{Request, SCHEMA, State};
pub use store::{PATH, ask, forget, read, update};

/// The unit that deals with a request.
pub const UNIT: &str = "nvidia-reload-upgrade.service";
