// SPDX-License-Identifier: MIT
//! Where a manager listens, and a connection to it within a bounded time.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use zbus::connection::Builder;
use zbus::{Connection, block_on};

use crate::{Error, relay};

/// No single question to a manager waits longer. PID 1 answers within milliseconds, also while it
/// reloads; one that takes this long is frozen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// Where the bus daemon of the system listens.
const BUS: &str = "/run/dbus/system_bus_socket";

/// A manager's sockets.
#[derive(Debug, Clone)]
pub(crate) enum Scope {
    /// PID 1.
    System,
    /// A user's manager.
    User(u32),
    /// The system's bus, for what is reached by its name there.
    Bus,
    /// One that a test serves.
    #[cfg(test)]
    Socket(PathBuf),
}

/// Where something listens.
#[derive(Debug, Clone)]
enum Address {
    /// The manager itself.
    Direct(PathBuf),
    /// A bus daemon.
    Bus(PathBuf),
}

impl Scope {
    fn manager(&self) -> String {
        match self {
            Scope::System => "systemd".into(),
            Scope::Bus => "the system's bus".into(),
            Scope::User(uid) => format!("the systemd of user {uid}"),
            #[cfg(test)]
            Scope::Socket(_) => "the test's systemd".into(),
        }
    }

    /// Whether anything is where it listens.
    pub(crate) fn is_there(&self) -> bool {
        self.addresses().iter().any(|(Address::Direct(path) | Address::Bus(path))| path.exists())
    }

    /// As whom it has to run.
    fn owner(&self) -> Option<u32> {
        match self {
            Scope::User(uid) => Some(*uid),
            _ => None,
        }
    }

    /// In the order of trial. The private socket comes first: it needs no bus daemon, so it serves
    /// early at boot, during shutdown, and while D-Bus is restarted. Only root may use PID 1's.
    fn addresses(&self) -> Vec<Address> {
        match self {
            Scope::Bus => vec![Address::Bus(BUS.into())],
            Scope::System => {
                let mut addresses = vec![Address::Bus(BUS.into())];
                if rustix::process::geteuid().is_root() {
                    addresses.insert(0, Address::Direct("/run/systemd/private".into()));
                }
                addresses
            }
            Scope::User(uid) => {
                let runtime = PathBuf::from(format!("/run/user/{uid}"));
                vec![Address::Direct(runtime.join("systemd/private")), Address::Bus(runtime.join("bus"))]
            }
            #[cfg(test)]
            Scope::Socket(path) => vec![Address::Direct(path.clone())],
        }
    }
}

/// The answer of `future`, waited for.
///
/// zbus' own `block_on` is compiled again for each type of future, with a scheduler inside: boxed, it is
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
    for address in scope.addresses() {
        match within(PATIENCE, address.clone(), scope.owner()) {
            Ok(connection) => return Ok(connection),
            // The first address is the likeliest: its error says most.
            Err(source) => failed = failed.or(Some((address, source))),
        }
    }
    let (address, source) =
        failed.unwrap_or_else(|| (Address::Bus(PathBuf::new()), zbus::Error::Unsupported));
    let (Address::Direct(path) | Address::Bus(path)) = address;
    Err(Error::Unreachable { manager: scope.manager(), address: path.display().to_string(), source })
}

/// Connects on a thread of its own: a frozen peer accepts the connection and never answers the
/// handshake, which zbus does not bound.
fn within(patience: Duration, address: Address, owner: Option<u32>) -> zbus::Result<Connection> {
    bounded::call(Instant::now() + patience, move || open(&address, owner)).unwrap_or_else(|error| {
        let silent = match error.kind() {
            ErrorKind::TimedOut => std::io::Error::new(ErrorKind::TimedOut, "it does not answer"),
            _ => error,
        };
        Err(zbus::Error::InputOutput(silent.into()))
    })
}

fn open(address: &Address, owner: Option<u32>) -> zbus::Result<Connection> {
    let (Address::Direct(path) | Address::Bus(path)) = address;
    let stream = bounded::connect(path, Instant::now() + PATIENCE)?;
    // A link in a user's directory may lead to PID 1, or to another user's manager.
    if let Some(uid) = owner.filter(|uid| bounded::peer(&stream).ok() != Some(*uid)) {
        let what = format!("what listens there does not run as user {uid}");
        return Err(zbus::Error::InputOutput(std::io::Error::new(ErrorKind::PermissionDenied, what).into()));
    }
    let builder = match address {
        Address::Direct(_) => Builder::unix_stream(relay::patched(stream)?).p2p(),
        Address::Bus(_) => Builder::unix_stream(stream),
    };
    wait(builder.method_timeout(PATIENCE).build())
}
