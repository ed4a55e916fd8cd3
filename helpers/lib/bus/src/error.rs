// SPDX-License-Identifier: MIT
//! What can go wrong, by kind, so that callers match on it and never on text.

use std::time::Duration;

/// Why a request to a manager failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no manager to talk to, or it does not listen to us.
    #[error("cannot reach {manager} at {address}")]
    Unreachable {
        /// The owner of the manager.
        manager: String,
        /// The last address tried.
        address: String,
        /// Why.
        source: zbus::Error,
    },
    /// The unit is unknown to the manager.
    #[error("there is no unit {unit}")]
    NoSuchUnit {
        /// Its name.
        unit: String,
    },
    /// The manager said no: masked, not to be started by hand, in the way of a shutdown, not
    /// permitted.
    #[error("systemd refuses to {what}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// The D-Bus name of the error.
        name: String,
        /// The manager's words.
        message: String,
    },
    /// The call did not come through.
    #[error("cannot {what}")]
    Call {
        /// What was asked.
        what: String,
        /// Why.
        source: zbus::Error,
    },
    /// The time was up. What was asked for goes on in systemd.
    #[error("{what} did not end within {} s", .waited.as_secs())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
}

impl Error {
    /// What a failed call to do `what` with `unit` means.
    pub(crate) fn of_call(what: impl Into<String>, unit: Option<&str>, source: zbus::Error) -> Self {
        let what = what.into();
        match &source {
            zbus::Error::MethodError(name, message, _) => {
                let name = name.as_str();
                if name == "org.freedesktop.systemd1.NoSuchUnit"
                    && let Some(unit) = unit
                {
                    return Error::NoSuchUnit { unit: unit.to_owned() };
                }
                let message = message.clone().unwrap_or_else(|| name.to_owned());
                Error::Refused { what, name: name.to_owned(), message }
            }
            zbus::Error::FDO(error) if matches!(**error, zbus::fdo::Error::AccessDenied(_)) => {
                Error::Refused {
                    what,
                    name: "org.freedesktop.DBus.Error.AccessDenied".into(),
                    message: "access denied".into(),
                }
            }
            _ => Error::Call { what, source },
        }
    }

    /// Whether the manager has no such unit: no file is there, or it is masked.
    pub fn is_no_such_unit(&self) -> bool {
        match self {
            Error::NoSuchUnit { .. } => true,
            Error::Refused { name, .. } => name == "org.freedesktop.systemd1.UnitMasked",
            _ => false,
        }
    }

    /// Whether the connection is gone rather than the request wrong: asking again, over a new
    /// connection, may help.
    pub fn is_disconnect(&self) -> bool {
        match self {
            Error::Unreachable { .. } => true,
            Error::Call { source, .. } => {
                use zbus::fdo::Error as Fdo;
                match source {
                    zbus::Error::InputOutput(_) => true,
                    zbus::Error::FDO(error) => {
                        matches!(**error, Fdo::NoReply(_) | Fdo::ServiceUnknown(_) | Fdo::Disconnected(_))
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }
}
