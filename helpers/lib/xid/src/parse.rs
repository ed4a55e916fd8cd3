// SPDX-License-Identifier: MIT
//! From a message to what it is.

mod nvrm;
mod others;
mod xid;

use crate::Event;

/// What `message` is: a kernel message as the journal has it, without time or host, and with its own
/// line ends. None for what is not of the driver, and for what of it says nothing about its health.
pub fn parse(message: &str) -> Option<Event> {
    let message = message.trim();
    if let Some(rest) = message.strip_prefix("NVRM: ") {
        return xid::parse(rest).or_else(|| nvrm::parse(rest));
    }
    if let Some(rest) = message.strip_prefix("nvidia-modeset: ") {
        return others::modeset(rest);
    }
    others::nvswitch(message.strip_prefix("nvidia-nvswitch")?)
}
