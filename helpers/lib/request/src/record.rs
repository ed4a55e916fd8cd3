// SPDX-License-Identifier: MIT
//! What is known of a request.

use serde::{Deserialize, Serialize};
use step::Reason;

/// The name and version of the JSON in the file.
pub const SCHEMA: &str = "nvidia-reload.request/1";

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It was asked for, and nothing has looked at it yet.
    Queued,
    /// The package manager is at work, or what it left on disk is no whole driver yet.
    WaitingForPackages,
    /// The GPUs are in use, or a run is under way.
    WaitingForIdle,
    /// None of the configured windows is open, or it is another machine's turn.
    WaitingForWindow,
    /// Something asks that the machine not be shut down.
    WaitingForInhibitor,
    /// The fleet's lock has granted no lease.
    WaitingForLock,
    /// The policy is `ask`: a person has to start the reload.
    Asking,
    /// The reload is under way.
    Reloading,
    /// It waited for as long as it may.
    GivenUp,
    /// The reload was refused, nothing was touched.
    Refused,
    /// The driver that is installed has no modules for the running kernel: no reload can help.
    NotInstalled,
    /// Only a reboot helps, nothing was touched.
    RebootRequired,
    /// The reload failed, and the old driver works.
    Failed,
}

impl State {
    /// Whether nothing deals with the request any more: a person, or another request, has to.
    pub fn is_final(self) -> bool {
        match self {
            State::Asking
            | State::GivenUp
            | State::Refused
            | State::NotInstalled
            | State::RebootRequired
            | State::Failed => true,
            State::Queued
            | State::WaitingForPackages
            | State::WaitingForIdle
            | State::WaitingForWindow
            | State::WaitingForInhibitor
            | State::WaitingForLock
            | State::Reloading => false,
        }
    }

    /// In words, a sentence without its full stop.
    pub fn words(self) -> &'static str {
        match self {
            State::Queued => "a reload is asked for",
            State::WaitingForPackages => "a reload waits for the packages",
            State::WaitingForIdle => "a reload waits until the GPUs are idle",
            State::WaitingForWindow => "a reload waits for its window",
            State::WaitingForInhibitor => "a reload waits until no inhibitor blocks a shutdown",
            State::WaitingForLock => "a reload waits for a lease of the fleet lock",
            State::Asking => "a reload waits for you",
            State::Reloading => "a reload is under way",
            State::GivenUp => "the GPUs were not idle in time, and the reload is given up",
            State::Refused => "a reload was refused, nothing was touched",
            State::NotInstalled => "no reload can help: the driver is not installed for the running kernel",
            State::RebootRequired => "a reboot is required, nothing was touched",
            State::Failed => "a reload failed",
        }
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`SCHEMA`].
    pub schema: String,
    /// Who asked, and why: each once, in order.
    pub reasons: Vec<String>,
    /// When it was asked for last, in microseconds since 1970.
    pub asked_usec: u64,
    /// How far it is.
    pub state: State,
    /// Since when, in microseconds since 1970.
    pub since_usec: u64,
    /// What it waits for, or why it went no further; empty where the state says it all.
    pub because: Vec<Reason>,
}

impl Request {
    /// A request at `now_usec`.
    pub(crate) fn new(reason: &str, now_usec: u64) -> Self {
        Self {
            schema: SCHEMA.into(),
            reasons: vec![reason.to_owned()],
            asked_usec: now_usec,
            state: State::Queued,
            since_usec: now_usec,
            because: Vec::new(),
        }
    }

    /// The same request asked for once more: it is looked at again.
    pub(crate) fn join(&mut self, reason: &str, now_usec: u64) {
        if !self.reasons.iter().any(|known| known == reason) {
            self.reasons.push(reason.to_owned());
        }
        self.asked_usec = now_usec;
        self.enter(State::Queued, Vec::new(), now_usec);
    }

    /// Says how far it is; whether that is news.
    pub(crate) fn enter(&mut self, state: State, because: Vec<Reason>, now_usec: u64) -> bool {
        if self.state == state && self.because == because {
            return false;
        }
        if self.state != state {
            self.since_usec = now_usec;
        }
        self.state = state;
        self.because = because;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_request_joins_the_first_and_begins_again() {
        let mut request = Request::new("a", 1);
        assert!(request.enter(State::Refused, vec![Reason::new("x", "y")], 2));
        request.join("b", 3);
        request.join("a", 4);
        assert_eq!(request.reasons, ["a", "b"]);
        assert_eq!((request.asked_usec, request.since_usec), (4, 3));
        assert_eq!((request.state, request.because.len()), (State::Queued, 0));
    }

    #[test]
    fn the_same_again_is_no_news() {
        let mut request = Request::new("a", 1);
        let because = || vec![Reason::new("x", "")];
        assert!(request.enter(State::WaitingForIdle, because(), 2));
        assert!(!request.enter(State::WaitingForIdle, because(), 3));
        assert!(request.enter(State::WaitingForIdle, Vec::new(), 4));
        assert_eq!(request.since_usec, 2);
    }
}
