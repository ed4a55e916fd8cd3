//! Podman's API for the moment, where nobody offers it.
//!
//! Podman has no daemon, and `podman.socket` is off on many machines, mostly on those of users. It is
//! started for as long as it is needed, by the manager whose it is: so the service behind it, and the
//! containers that it starts, live where its user's own would, and not in a sandbox of ours.

use std::time::{Duration, Instant};

use bus::{LoadState, Manager};
use step::Context;

const SOCKET: &str = "podman.socket";

/// How long a manager may take to listen on a socket.
const PATIENCE: Duration = Duration::from_secs(30);

/// The sockets that were started; stopped again when dropped.
#[derive(Debug, Default)]
pub(crate) struct Offered(Vec<Manager>);

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
        match start(user) {
            Ok(started) => offered.0.extend(started),
            Err(error) => {
                let of = user.map_or_else(|| "root".to_owned(), |uid| format!("user {uid}"));
                context.warn(format!("{SOCKET} of {of} cannot be started: {error}"));
            }
        }
    }
    offered
}

fn start(user: Option<u32>) -> Result<Option<Manager>, bus::Error> {
    let manager = user.map_or_else(Manager::system, Manager::user)?;
    if manager.unit(SOCKET)?.load != LoadState::Loaded {
        return Ok(None);
    }
    let mut follower = manager.follow(&[])?;
    let job = follower.start(SOCKET)?;
    follower.wait(&job, Instant::now() + PATIENCE)?;
    Ok(Some(manager))
}

impl Drop for Offered {
    fn drop(&mut self) {
        for manager in &self.0 {
            // Left on, it would cost nothing but be somebody's surprise.
            let _ = manager.stop(SOCKET, bus::Mode::Replace);
        }
    }
}
