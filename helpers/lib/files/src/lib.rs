// SPDX-License-Identifier: MIT
//! Files and locks of root: checked before they are believed, replaced whole, waited for with a limit.
//!
//! Nothing here depends on the rest of the program, so that every helper may use it.

#![forbid(unsafe_code)]

mod lock;
mod owner;
mod remove;
mod replace;

pub use lock::{LockError, lock};
pub use owner::{OwnerError, Untrusted, check_owner};
pub use remove::remove;
pub use replace::{replace, replace_synced};
