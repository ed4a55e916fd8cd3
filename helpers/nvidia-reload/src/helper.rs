// SPDX-License-Identifier: MIT
//! The helpers that are asked: what one answers, or why it has no answer, in its own words.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::de::DeserializeOwned;
use step::Exit;

use crate::fault::{Fault, Result};

/// Only where a helper cannot be run: one that runs and fails has a reason of its own.
const INCOMPLETE: &str = "is the package nvidia-reload installed completely?";

/// The most that is read of what a helper says on standard error.
const ERRORS: u64 = 64 << 10;

/// Asks `command`, a helper, and waits for its answer for `time`. Faults end this command with `exit`.
///
/// # Errors
/// It cannot be run, does not end in time, or fails; what it said on standard error is then why.
pub fn ask<T: DeserializeOwned>(command: &mut Command, time: Duration, exit: Exit) -> Result<T> {
    let words: Vec<String> = [command.get_program()]
        .into_iter()
        .chain(command.get_args().take(1))
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let (name, words) = (words[0].clone(), words.join(" "));
    let cannot = |error: &dyn std::error::Error, remedy: &str| {
        Fault::new(exit, format!("cannot run {name}"), remedy).because(error)
    };
    // Not a pipe: what the helper leaves behind may hold that open.
    let mut errors: File =
        memfd_create("errors", MemfdFlags::CLOEXEC).map_err(|error| cannot(&error, ""))?.into();
    command.stderr(errors.try_clone().map_err(|error| cannot(&error, ""))?);
    let (status, text) = match bounded::child(command, Instant::now() + time, bounded::BODY) {
        Ok(answer) => answer,
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            return Err(Fault::new(exit, format!("{words}: {error}"), "`ps` shows what it waits for"));
        }
        Err(error) => return Err(cannot(&error, INCOMPLETE)),
    };
    let mut said = Vec::new();
    let _ = errors.rewind().and_then(|()| errors.take(ERRORS).read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said).into_owned();
    match serde_json::from_slice(&text) {
        Ok(answer) => {
            // Warnings of a helper that has an answer.
            eprint!("{said}");
            Ok(answer)
        }
        Err(_) if text.is_empty() => Err(reason(&said, exit).unwrap_or_else(|| {
            Fault::new(exit, format!("{words} has no answer: {status}"), "`journalctl -b -e` may say why")
        })),
        Err(error) => {
            let remedy = "install command and helpers of one version";
            Err(Fault::new(exit, format!("{words} is not understood"), remedy).because(&error))
        }
    }
}

/// What a helper says as it fails: a line, and below it why. None where it says nothing.
fn reason(said: &str, exit: Exit) -> Option<Fault> {
    let is_cause = |line: &&str| line.trim_start().starts_with("because: ");
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let causes = lines.iter().rev().take_while(|line| is_cause(line)).count();
    let at = lines.len().checked_sub(causes + 1)?;
    let mut fault = Fault::new(exit, lines[at].trim(), "");
    fault.causes = lines[at + 1..]
        .iter()
        .map(|line| line.trim_start().trim_start_matches("because: ").to_owned())
        .collect();
    Some(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(script: &str) -> Result<u32> {
        ask(Command::new("sh").args(["-c", script]), Duration::from_secs(10), Exit::Refused)
    }

    #[test]
    fn why_a_helper_has_no_answer_is_in_its_own_words() {
        assert_eq!(say("echo 7").expect("answers"), 7);
        let fault = say(
            "echo 'a warning' >&2; echo 'config.toml: bad key' >&2; echo '  because: no number' >&2; exit 3",
        )
        .expect_err("fails");
        assert_eq!(
            (fault.error.as_str(), fault.remedy.as_str(), fault.exit),
            ("config.toml: bad key", "", 3)
        );
        assert_eq!(fault.causes, ["no number"]);
        let fault = say("exit 3").expect_err("fails");
        assert!(fault.error.contains("no answer: exit status: 3"), "{fault:?}");
        assert!(say("echo x").expect_err("is no number").error.contains("not understood"));
    }

    #[test]
    fn only_one_that_cannot_be_run_may_be_missing() {
        let asked = ask::<u32>(&mut Command::new("/no/such/helper"), Duration::from_secs(1), Exit::Failed);
        let fault = asked.expect_err("is not there");
        assert_eq!((fault.error.as_str(), fault.exit), ("cannot run /no/such/helper", 1));
        assert_eq!(fault.remedy, INCOMPLETE);
    }
}
