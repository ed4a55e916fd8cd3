// SPDX-License-Identifier: MIT
//! The write-ahead record of a run: what was stopped, unloaded or changed, so that nothing is lost.
//!
//! Append-only JSON lines in one file. Each act is written and synced before it is done, marked when it is done, and
//! marked again when it is undone; so an undo in this boot or the next knows what to restore without asking any other
//! program. A closed run moves to `history/`.

#![forbid(unsafe_code)]

#[cfg(test)]
mod fuzz;
mod gpu;
mod history;
mod install;
mod intent;
mod object;
mod record;
mod retire;
mod room;
mod snapshot;
mod step;
mod store;
mod tally;

pub use gpu::{Fabric, Gpu, GpuInstance, Health, Instance, Mode, RemappedRows, Setting};
pub use history::{History, Recorded};
pub use install::Install;
pub use intent::{Intent, NotDone};
pub use object::{Console, Container, DriverFiles, Module, Object, Pod, Process, Session, Settings, Unit};
pub use record::{Act, Event, Outcome, Record, Run, State, VERSION};
pub use snapshot::{Chosen, Node, Snapshot, Starter};
pub use step::Step;
pub use store::{DIRECTORY, Ledger};
