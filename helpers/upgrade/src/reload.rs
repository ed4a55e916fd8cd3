// SPDX-License-Identifier: MIT
//! The reload itself: done by the command that a person would type, which knows how a run ended.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use request::State;
use serde::Deserialize;
use step::{Exit, Reason};

/// The command.
const COMMAND: &str = "/usr/sbin/nvidia-reload";

/// How long it may take: it follows a run for 13 hours at most, and asks for a plan before. The run goes on
/// without it.
const RUN: Duration = Duration::from_secs(14 * 60 * 60);

/// What is understood of its report, and of the error that it prints in its place.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    reasons: Vec<Reason>,
    error: Option<String>,
    remedy: String,
}

/// Reloads, with `if_idle` only if no work is lost by it. None when the new driver works, else how it
/// ended and why.
///
/// # Errors
/// The command cannot be run, or does not end.
pub(crate) fn reload(if_idle: bool) -> Result<Option<(State, Vec<Reason>)>> {
    let mut command = Command::new(COMMAND);
    command.args(["reload", "--yes", "--json"]).args(if_idle.then_some("--if-idle"));
    let (status, output) = bounded::child(&mut command, Instant::now() + RUN, bounded::BODY)
        .with_context(|| format!("run {COMMAND} reload"))?;
    Ok(ended(status.code(), &output))
}

fn ended(code: Option<i32>, text: &[u8]) -> Option<(State, Vec<Reason>)> {
    let is = |exit: Exit| code == Some(i32::from(exit as u8));
    // What did not come back is in the ledger; the driver is the new one, or the run says so.
    if is(Exit::Done) {
        return None;
    }
    // Without an answer there is the exit status.
    let answer: Answer = serde_json::from_slice(text).unwrap_or_default();
    let mut because = answer.reasons;
    because.extend(answer.error.map(|error| Reason::new(error, answer.remedy)));
    let state = match () {
        () if is(Exit::Refused) => State::Refused,
        () if is(Exit::RebootRequired) => State::RebootRequired,
        () => State::Failed,
    };
    if because.is_empty() {
        let status = code.map_or("a signal".into(), |code| format!("status {code}"));
        because.push(Reason::new(
            format!("the run ended with {status}"),
            "`nvidia-reload status` shows how it ended",
        ));
    }
    Some((state, because))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_known_by_the_exit_status_and_the_reasons_by_the_answer() {
        assert_eq!(ended(Some(0), b""), None);
        let reason = Reason::new("a", "b");
        let report = br#"{"schema": "x", "reasons": [{"what": "a", "remedy": "b"}], "exit": 3}"#;
        assert_eq!(ended(Some(3), report), Some((State::Refused, vec![reason.clone()])));
        let fault = br#"{"schema": "x", "exit": 4, "error": "a", "remedy": "b", "causes": []}"#;
        assert_eq!(ended(Some(4), fault), Some((State::RebootRequired, vec![reason])));
        for code in [Some(1), Some(5), None] {
            let (state, because) = ended(code, b"").expect("is not done");
            assert_eq!((state, because.len()), (State::Failed, 1));
        }
    }
}
