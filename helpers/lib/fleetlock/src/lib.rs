// SPDX-License-Identifier: MIT
//! The lease that this machine has from a FleetLock server while it is out of service.
//!
//! A run asks for it before it stops anything. It is released when the driver works, and kept where the run failed:
//! then no other machine of the group begins. What was asked for is on disk before it is asked for, and goes when
//! the server has said that the lease is released; so a machine that vanishes in the middle of a run knows after its
//! boot that it has one. The server is asked by units of their own, since no step speaks over the network.

#![forbid(unsafe_code)]

mod answer;
mod lease;
mod release;
mod take;

pub use answer::Answer;
pub use lease::{LEASE, Lease, Locked, State, lock, read};
pub use release::{STEADY, release, settle};
pub use take::{Granted, refused_since, take};

/// What asks the server for a lease.
const LOCK_UNIT: &str = "nvidia-reload-lock.service";

/// What tells the server that the lease is released; it tries until the server has taken that.
const UNLOCK_UNIT: &str = "nvidia-reload-unlock.service";
