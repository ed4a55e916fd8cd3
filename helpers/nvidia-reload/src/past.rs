// SPDX-License-Identifier: MIT
//! What was done, what waits, and what is saved: for monitors.

use fleetlock::Lease;
use request::Request;
use step::Root;

use crate::runs::{Summary, in_short};
use crate::status::is_denied;

/// A driver that is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its version.
    pub version: String,
    /// When it was saved, in microseconds since 1970.
    pub made_usec: u64,
    /// The bytes that its files have together.
    pub bytes: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    /// The run that is open.
    pub open: Option<Summary>,
    /// The run that ended last.
    pub last: Option<Summary>,
    /// A reload that waits.
    pub request: Option<Request>,
    /// The lease of the fleet's lock.
    pub lease: Option<Lease>,
    /// The drivers in slots, the newest first. Whether they are whole is not looked at: that takes minutes.
    pub slots: Vec<Saved>,
    /// What could not be looked at, in sentences.
    pub unseen: Vec<String>,
}

/// Looks. Changes nothing; what only root sees is said to be unseen.
pub fn past(root: &Root) -> Past {
    let mut past = Past::default();
    let history = step::open_ledger(root).and_then(|ledger| ledger.on_record());
    let history = seen("the runs so far", history, &mut past.unseen);
    let newest =
        |is_open: bool| history.runs.iter().find(|recorded| recorded.run.outcome.is_none() == is_open);
    past.open = newest(true).map(|recorded| in_short(root, recorded));
    past.last = newest(false).map(|recorded| in_short(root, recorded));
    past.unseen.extend(history.unreadable.iter().map(|what| format!("a run on record: {what}")));
    past.request = seen("a request for a reload", request::read(root), &mut past.unseen);
    past.lease = seen("the lease of the fleet lock", fleetlock::read(root), &mut past.unseen);
    let slots = slots::all(root).map(|(slots, _)| slots);
    past.slots = seen("the drivers in slots", slots, &mut past.unseen)
        .into_iter()
        .map(|slot| Saved {
            version: slot.manifest.version.clone(),
            made_usec: slot.manifest.made_usec,
            bytes: slot.manifest.size(),
        })
        .collect();
    past
}

fn seen<T: Default>(what: &str, found: anyhow::Result<T>, unseen: &mut Vec<String>) -> T {
    found.unwrap_or_else(|error| {
        unseen.push(match is_denied(&error) {
            true => format!("{what}: only root may read it"),
            false => format!("{what}: {error:#}"),
        });
        T::default()
    })
}
