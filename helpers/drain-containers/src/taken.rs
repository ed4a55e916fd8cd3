// SPDX-License-Identifier: MIT
//! What a run took, and restores.

use ledger::Container;

/// A container and the act that took it.
pub(crate) struct Taken {
    pub(crate) act: u64,
    pub(crate) container: Container,
}
