// SPDX-License-Identifier: MIT
//! Docker, Podman, and the pods of a kubelet on containerd or CRI-O: which containers have a GPU, what happens to each,
//! how they are stopped and restarted in parallel.
//!
//! The types of [`Survey`] and [`decide`] need no HTTP, for programs that only read `drain-containers list --json`; the
//! rest needs the feature `client`.
//!
//! An engine is asked by its API socket only: no command line tool, no search in the text of an answer. The state that
//! is read back counts, not that the engine accepted an order.

#![forbid(unsafe_code)]

mod model;
mod policy;

#[cfg(feature = "client")]
mod answer;
#[cfg(feature = "client")]
mod api;
#[cfg(feature = "client")]
mod bundle;
#[cfg(feature = "client")]
mod clients;
#[cfg(feature = "client")]
mod cut_off;
#[cfg(feature = "client")]
mod definition;
#[cfg(feature = "client")]
mod drive;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod find;
#[cfg(feature = "client")]
mod foreign;
#[cfg(all(test, feature = "client"))]
mod fuzz;
#[cfg(feature = "client")]
mod ids;
#[cfg(feature = "client")]
mod inspect;
#[cfg(feature = "client")]
mod numbers;
#[cfg(feature = "client")]
mod order;
#[cfg(feature = "client")]
mod owner;
#[cfg(feature = "client")]
pub mod pods;
#[cfg(feature = "client")]
mod running;
#[cfg(feature = "client")]
mod select;
#[cfg(feature = "client")]
mod stale;
#[cfg(feature = "client")]
mod survey;
#[cfg(feature = "client")]
mod swarm;
#[cfg(feature = "client")]
mod user;

pub use model::{Container, Engine, Kind, Owner, Presence, SURVEY_SCHEMA, Survey, Why};
pub use policy::{Decision, decide};

#[cfg(feature = "client")]
pub use api::Client;
#[cfg(feature = "client")]
pub use bundle::mounted;
#[cfg(feature = "client")]
pub use cut_off::end_cut_off;
#[cfg(feature = "client")]
pub use definition::Definition;
#[cfg(feature = "client")]
pub use drive::{Ended, become_healthy, bring_down, bring_up};
#[cfg(feature = "client")]
pub use error::Error;
#[cfg(feature = "client")]
pub use find::podman_listens;
#[cfg(feature = "client")]
pub use inspect::{Inspect, Phase};
#[cfg(feature = "client")]
pub use order::{Direction, Member, waves};
#[cfg(feature = "client")]
pub use running::{Daemon, Running};
#[cfg(feature = "client")]
pub use stale::stale;
#[cfg(feature = "client")]
pub use survey::{gpu_containers, side_by_side, wait_for};
#[cfg(feature = "client")]
pub use user::in_background;
