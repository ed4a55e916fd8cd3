// SPDX-License-Identifier: MIT
//! What holds the GPU, and to what each holder belongs.
//!
//! [`refcounts()`] shows in a few reads whether there is any holder; [`scan()`] finds every process that keeps the
//! driver loaded and the owner that can stop it, and reports what it could not see and which references it could not
//! explain. Nothing here changes anything.
//!
//! A device is identified by its number, never by a path. See [`model`] for the schema of the answer.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod account;
mod cgroup;
mod console;
mod device;
mod devices;
mod display;
mod disposition;
#[cfg(test)]
mod fuzz;
mod guard;
mod guests;
mod held;
mod hidden;
mod in_flight;
mod kcmp;
mod line;
mod maps;
pub mod model;
mod names;
mod namespace;
mod pod;
mod process;
mod refcounts;
mod scan;
mod scope;
mod search;
mod sessions;
mod slurm;
mod tables;
mod text;
mod unseen;
mod walk;

pub use cgroup::{groups_of, owner};
pub use console::consoles;
pub use device::{Device, Kind, Rdev, Via};
pub use disposition::{Disposition, Rules};
pub use graph::is_of_driver;
pub use guard::Guarded;
pub use guests::{Bystanders, Guest, MpsControl, bystanders, mps};
pub use line::{Caller, below};
pub use model::{
    Console, Container, Engine, Holder, Module, Owner, Place, Pod, Scan, Unexplained, taken_by_name,
};
pub use names::{is_core, is_host};
pub use namespace::is_of_user;
pub use process::{Stat, user_name};
pub use refcounts::refcounts;
pub use scan::{scan, sent_by_others};
pub use scope::Scope;
pub use sessions::{Session, is_logind, sessions_of};
pub use slurm::{Slurm, SlurmDaemon, drain_command, job_of, slurm};
pub use text::escape;

/// Why a question could not be answered at all. Single processes that come, go or cannot be
/// looked at are no error: see [`Scan::unseen`].
pub use graph::{Error, Result};
