//! Podman's API for the moment, where nobody offers it.
//!
//! Podman has no daemon, and `podman.socket` is off on many machines, mostly on those of users. It is
//! started for as long as it is needed, by the manager whose it is: so the service behind it, and the
//! containers that it starts, live where its user's own would, and not in a sandbox of ours.

use step::{Context, Order, order_unit};

const SOCKET: &str = "podman.socket";

/// The sockets that were started, by whose they are; stopped again when dropped.
#[derive(Debug, Default)]
pub(crate) struct Offered(Vec<Option<u32>>);

/// Sees to it that each of these Podmans can be asked: root's is none, a user's goes by the user id.
/// Where that fails, it shows as an engine that cannot be reached.
pub(crate) fn offer(context: &Context, whose: impl IntoIterator<Item = Option<u32>>) -> Offered {
    let mut offered = Offered::default();
    if !context.root.is_system() {
        return offered;
    }
    for user in whose {
        if engines::podman_listens(&context.root, user) {
            continue;
        }
        match order_unit(Order::Start, SOCKET, user) {
            Ok(true) => offered.0.push(user),
            Ok(false) => {}
            Err(error) => {
                let of = user.map_or_else(|| "root".to_owned(), |uid| format!("user {uid}"));
                context.warn(format!("{SOCKET} of {of} cannot be started: {error}"));
            }
        }
    }
    offered
}

impl Drop for Offered {
    fn drop(&mut self) {
        for user in &self.0 {
            // Left on, it would cost nothing but be somebody's surprise.
            let _ = order_unit(Order::Stop, SOCKET, *user);
        }
    }
}
