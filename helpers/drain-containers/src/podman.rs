// SPDX-License-Identifier: MIT
//! Root's Podman's API for the moment, where no socket offers it.
//!
//! Podman has no daemon, and `podman.socket` is off on many machines. It is started for as long as it is
//! needed, by PID 1: so the service behind it, and the containers that it starts, live where they would
//! otherwise, and not in a sandbox of ours. For a user's Podman, that user's side does the same.

use std::collections::BTreeSet;

use step::{Context, Order, order_unit};

const SOCKET: &str = "podman.socket";

/// The socket, where it was started; stopped again when dropped.
#[derive(Debug)]
pub(crate) struct Offered;

/// Sees to it that root's Podman can be asked, if it is among `whose`. Where that fails, it shows as an
/// engine that cannot be reached.
pub(crate) fn offer(context: &Context, whose: &BTreeSet<Option<u32>>) -> Option<Offered> {
    if !context.root.is_system() || !whose.contains(&None) || engines::podman_listens(&context.root) {
        return None;
    }
    match order_unit(Order::Start, SOCKET) {
        Ok(started) => started.then_some(Offered),
        Err(error) => {
            context.warn(format!("{SOCKET} cannot be started: {error}"));
            None
        }
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        // Left on, it would cost nothing but be somebody's surprise.
        let _ = order_unit(Order::Stop, SOCKET);
    }
}
