// SPDX-License-Identifier: MIT
//! What was done, what waits, and what is saved: for monitors.

use fleetlock::Lease;
use ledger::Run;
use request::Request;
use step::Root;

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// The run that is open.
    pub open: Option<Run>,
    /// The run that ended last.
    pub last: Option<Run>,
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
    let runs = step::open_ledger(root).and_then(|ledger| Ok((ledger.read()?, ledger.last_closed()?)));
    (past.open, past.last) = seen("the runs so far", runs, &mut past.unseen);
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
