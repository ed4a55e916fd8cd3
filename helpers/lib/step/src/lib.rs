//! What every step shares: the two verbs, the root, the configuration, the journal, exit codes.

mod config;
mod harness;
mod journal;
mod plan;
mod root;
mod stop;

pub use config::{AutoRemove, Config, Containers, Processes, Units};
pub use harness::{Context, Verb, boot_id, main, open_ledger};
pub use journal::{Priority, log};
pub use plan::{Action, PLAN_SCHEMA, Plan, Verdict, Versions};
pub use root::Root;
pub use stop::{Exit, Reason, Stop};
