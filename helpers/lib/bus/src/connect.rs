//! Where a manager listens, and a connection to it within a bounded time.

use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use zbus::connection::Builder;
use zbus::{Connection, block_on};

use crate::Error;

/// No single question to a manager waits longer. PID 1 answers within milliseconds, also while it
/// reloads; one that takes this long is frozen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// A manager's sockets.
#[derive(Debug, Clone)]
pub(crate) enum Scope {
    /// PID 1.
    System,
    /// A user's manager.
    User(u32),
    /// One that a test serves.
    #[cfg(test)]
    Socket(std::path::PathBuf),
}

/// An address, and whether the manager itself listens there rather than a bus daemon.
struct Address {
    text: String,
    direct: bool,
}

impl Scope {
    fn manager(&self) -> String {
        match self {
            Scope::System => "systemd".into(),
            Scope::User(uid) => format!("the systemd of user {uid}"),
            #[cfg(test)]
            Scope::Socket(_) => "the test's systemd".into(),
        }
    }

    /// In the order of trial. The private socket comes first: it needs no bus daemon, so it serves
    /// early at boot, during shutdown, and while D-Bus is restarted. Only root may use PID 1's.
    fn addresses(&self) -> Vec<Address> {
        let direct = |path: &Path| Address { text: format!("unix:path={}", path.display()), direct: true };
        let bus = |path: &str| Address { text: format!("unix:path={path}"), direct: false };
        match self {
            Scope::System => {
                let mut addresses = vec![bus("/run/dbus/system_bus_socket")];
                if rustix::process::geteuid().is_root() {
                    addresses.insert(0, direct(Path::new("/run/systemd/private")));
                }
                addresses
            }
            Scope::User(uid) => {
                let runtime = format!("/run/user/{uid}");
                vec![direct(&Path::new(&runtime).join("systemd/private")), bus(&format!("{runtime}/bus"))]
            }
            #[cfg(test)]
            Scope::Socket(path) => vec![direct(path)],
        }
    }
}

/// The answer of `future`, waited for.
///
/// zbus' own `block_on` is made anew for each type of future, with a scheduler inside: boxed, it is
/// there once.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut answer = None;
    let future: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(async { answer = Some(future.await) });
    block_on(future);
    answer.expect("it was waited for")
}

/// A connection to the manager of `scope`.
pub(crate) fn connect(scope: &Scope) -> Result<Connection, Error> {
    let mut failed = None;
    for Address { text, direct } in scope.addresses() {
        match within(PATIENCE, text.clone(), direct) {
            Ok(connection) => return Ok(connection),
            // The first address is the likeliest: its error says most.
            Err(source) => failed = failed.or(Some((text, source))),
        }
    }
    let (address, source) = failed.unwrap_or_else(|| (String::new(), zbus::Error::Unsupported));
    Err(Error::Unreachable { manager: scope.manager(), address, source })
}

/// Connects on a thread of its own: a frozen peer accepts the connection and never answers the
/// handshake, which zbus does not bound.
fn within(patience: Duration, address: String, direct: bool) -> zbus::Result<Connection> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let builder = Builder::address(address.as_str()).method_timeout(PATIENCE);
        let builder = if direct { builder.p2p() } else { builder };
        let _ = sender.send(wait(builder.build()));
    });
    receiver.recv_timeout(patience).unwrap_or_else(|_| {
        let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "it does not answer");
        Err(zbus::Error::InputOutput(silent.into()))
    })
}
