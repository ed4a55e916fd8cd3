// SPDX-License-Identifier: MIT
//! What an engine did not do, typed.

use std::time::Duration;

/// Why an engine did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It knows no such container.
    #[error("the engine knows no such container")]
    Gone,
    /// It could not be asked, or went away over it: the order may or may not have arrived.
    #[error("the engine does not answer: {reason}")]
    Unreachable {
        /// The kernel's error number, if there was one.
        errno: Option<i32>,
        /// What happened to the connection.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the engine did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It said no.
    #[error("the engine answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The engine's words, for a reader only.
        message: String,
    },
    /// Its answer cannot be understood.
    #[error("the engine's answer cannot be understood: {0}")]
    Odd(String),
}
