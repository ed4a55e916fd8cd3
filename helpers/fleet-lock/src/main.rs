// SPDX-License-Identifier: MIT
//! Asks the fleet's lock for a lease, and tells it that the lease is released: the one program of ours that speaks
//! over the network. It has nothing else: what it is to ask for is in the record of the lease, and what came of it
//! is left beside that.

#![forbid(unsafe_code)]

mod certificates;
mod client;
#[cfg(test)]
mod server;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use client::{Operation, post};
use fleetlock::{Answer, Lease, State, lock};
use step::{Priority, Root, log_as};

/// The units that run this, for the journal.
const LOCK: &str = "nvidia-reload-lock.service";
const UNLOCK: &str = "nvidia-reload-unlock.service";

fn main() -> ExitCode {
    let root = Root::system();
    let verb = std::env::args().nth(1).unwrap_or_default();
    let (unit, done) = match verb.as_str() {
        "lock" => (LOCK, ask(&root)),
        "unlock" => (UNLOCK, unlock(&root)),
        _ => {
            eprintln!("usage: fleet-lock lock|unlock");
            return ExitCode::from(step::Exit::Usage as u8);
        }
    };
    match done {
        Ok(text) => {
            log_as("fleet-lock", unit, Priority::Info, &text, &[]);
            ExitCode::SUCCESS
        }
        Err(error) => {
            log_as("fleet-lock", unit, Priority::Warning, &format!("{error:#}"), &[]);
            ExitCode::FAILURE
        }
    }
}

/// Asks for the lease that is written down, and leaves the answer.
fn ask(root: &Root) -> Result<String> {
    let locked = lock(root)?;
    let lease = locked.read()?.context("no lease is to be asked for")?;
    if lease.state == State::Releasing {
        bail!("{} is about to be released", lease.name());
    }
    let answer = post(root, &lease, Operation::Lock);
    let text = describe(&lease, &answer);
    // The lock goes first: who waits for the answer takes it.
    drop(locked);
    answer.leave(root)?;
    Ok(text)
}

fn describe(lease: &Lease, answer: &Answer) -> String {
    match answer {
        Answer::Granted => format!("{} is granted", lease.name()),
        Answer::Refused(why) => format!("{} is not granted: {why}", lease.name()),
        Answer::Unreached(why) => format!("{} was not asked: {why}", lease.server),
        Answer::Unclear(why) => format!("it is not clear whether {} is granted: {why}", lease.name()),
    }
}

/// Tells the server that the lease is released. Where it does not take that, systemd starts this again.
fn unlock(root: &Root) -> Result<String> {
    let locked = lock(root)?;
    let Some(lease) = locked.read()? else { return Ok("there is no lease".to_owned()) };
    if lease.state != State::Releasing {
        return Ok(format!("{} is in use", lease.name()));
    }
    let why = match post(root, &lease, Operation::Unlock) {
        Answer::Granted => {
            locked.remove()?;
            return Ok(format!("{} is released", lease.name()));
        }
        Answer::Refused(why) | Answer::Unreached(why) | Answer::Unclear(why) => why,
    };
    let text = format!("{} is not released yet: {why}", lease.name());
    if lease.trouble.as_ref() != Some(&why) {
        locked.write(&Lease { trouble: Some(why), ..lease })?;
    }
    bail!(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::server::{Mode, Server};

    /// A machine with a lease in this state of the server.
    fn machine(server: &Server, state: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        let path = root.path(fleetlock::LEASE);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
        let text = serde_json::json!({
            "schema": "nvidia-reload.lease/1", "server": server.url(), "group": "default", "id": "n1",
            "state": state, "since_usec": 1, "run": null, "trouble": null,
        });
        fs::write(path, text.to_string()).expect("writes");
        (directory, root)
    }

    fn answer(root: &Root) -> String {
        fs::read_to_string(root.path("/run/nvidia-reload/lease-answer.json")).expect("is left")
    }

    #[test]
    fn a_lease_is_asked_for_released_and_forgotten() {
        let server = Server::start(1);
        let (_directory, root) = machine(&server, "asking");
        assert!(ask(&root).expect("asks").ends_with("is granted"));
        assert!(answer(&root).contains(r#""granted""#), "{}", answer(&root));
        assert_eq!(server.holders(), ["n1"]);
        let used = unlock(&root).expect("looks");
        assert!(used.ends_with("is in use"), "{used}");
        assert_eq!(server.holders(), ["n1"], "of a run that is not over");
        let (_directory, root) = machine(&server, "releasing");
        ask(&root).expect_err("is about to be released");
        server.set(Mode::Failing);
        let error = unlock(&root).expect_err("is not taken").to_string();
        assert!(error.contains("is not released yet: 500"), "{error}");
        let lease = fleetlock::read(&root).expect("reads").expect("is there");
        assert!(lease.trouble.is_some_and(|trouble| trouble.contains("etcd is down")));
        server.set(Mode::Honest);
        assert!(unlock(&root).expect("is taken").ends_with("is released"));
        assert_eq!(server.holders(), Vec::<String>::new());
        assert_eq!(fleetlock::read(&root).expect("reads"), None);
        assert_eq!(unlock(&root).expect("looks"), "there is no lease");
    }
}
