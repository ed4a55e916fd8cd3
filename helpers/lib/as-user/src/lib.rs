// SPDX-License-Identifier: MIT
//! Orders to a user's own manager and Podman, with the rights of that user.
//!
//! - No process with uid 0 connects to a user's socket or opens a user's file. A worker does it,
//!   `nvidia-reload-user@UID.service`: PID 1 starts it as that user, in a sandbox, with limits on memory,
//!   tasks and time. It gives orders to the user's manager and Podman, and runs no program.
//! - A step that needs something from a user listens on a socket in a folder of root's; the socket belongs to
//!   the user. The worker connects, and root checks the peer's uid with the kernel.
//! - One conversation a user at a time (a lock that only root can open). It has a limit in time, on each
//!   line and on all bytes; an answer without a request ends it.
//! - Requests are [`Ask`], a line of JSON each, numbered; answers may come in any order.
//! - What comes back is a claim. Every string is checked: none has a control character, names and ids have
//!   their grammar ([`is_unit_name`], [`is_container_id`]) and are those that were asked for.
//! - If a user's worker breaks these rules, the conversation ends: that user's own workloads are not
//!   restarted and are named in the result. Others do not wait for it.
//! - The kernel's facts decide whether a user is asked at all: the control group of a holder, the uid
//!   of a `conmon`. Without either, no worker is started.

#![forbid(unsafe_code)]

mod agent;
mod clean;
#[cfg(test)]
mod fuzz;
mod grammar;
mod protocol;

pub use agent::{Agent, Error};
pub use clean::clean;
pub use grammar::{is_container_id, is_container_name, is_unit_name};
pub use protocol::{
    Ask, Bundle, Dependents, Fault, LONGEST, MOST, Reply, Request, Started, Stop, Stopped, Unit, socket,
};
