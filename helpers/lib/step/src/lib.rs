// SPDX-License-Identifier: MIT
//! What every step shares: the two verbs, the root, the configuration, the journal, exit codes.

mod admit;
mod by_name;
mod config;
mod context;
mod excerpt;
mod failure;
mod finish;
#[cfg(test)]
mod fuzz;
mod guard;
mod harness;
mod inhibitors;
mod journal;
mod machine;
mod manager;
mod message;
mod plan;
mod program;
mod root;
mod run_request;
#[cfg(test)]
mod sandbox;
mod services;
mod shutdown;
mod sibling;
mod starter;
mod stop;
#[cfg(test)]
mod sums;
pub mod text;
mod undo;
#[cfg(test)]
mod unit_files;
mod units;
mod verified;

pub use admit::{OFF, is_switched_off};
pub use by_name::BY_NAME;
pub use config::{
    AutoRemove, Config, Containers, Fleet, Gpus, Heal, Initramfs, LockedClocks, Logind, Pods, Policy,
    Processes, StaleInitramfs, Units, Upgrade, Verify, Window, zone_file,
};
pub use context::{Context, show_status};
pub use excerpt::{Entry, Excerpt, Of, excerpt};
pub use failure::{FAILURE_SCHEMA, Failure, now_usec};
pub use finish::{Leftovers, finish};
pub use guard::Guard;
pub use harness::{NoVerb, Verb, boot_id, main, main_with, open_ledger};
pub use inhibitors::{Inhibitor, inhibitors};
pub use journal::{Priority, log, log_as, log_event, say};
pub use machine::machine_id;
pub use manager::{Away, NO_SUCH_UNIT, Order, order_unit, unit_away};
pub use message::Message;
pub use plan::{Action, PLAN_SCHEMA, Plan, Verdict, Versions, monotonic_usec};
pub use program::fix_path;
pub use root::Root;
pub use run_request::RunRequest;
pub use services::{NVIDIAS_SERVICES, ServicesDown, services_there};
pub use shutdown::{system_is_stopping, undo_is_too_late};
pub use sibling::{
    await_fabric, note_failed_services, restore_units_of_users, stop_undos, undo_limit, undo_settings,
    undo_steps,
};
pub use starter::{announce_start, take_start, withdraw_start};
pub use stop::{Exit, Reason, Stop};
pub use undo::Undo;
pub use units::{DRAINED, OFFLINE, OurUnits, RELOAD, RESET, is_slurmd};
pub use verified::{Check, Grade, VERIFIED_SCHEMA, Verified};
