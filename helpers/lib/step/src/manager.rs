// SPDX-License-Identifier: MIT
//! Single units started and stopped by the sibling that speaks D-Bus, so that others need not.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The sibling.
const ASKED: &str = "/usr/libexec/nvidia-reload/stop-units";

/// How long the sibling may take. Its own waits end before: it waits 300 s at most for a unit to stop.
const PATIENCE: Duration = Duration::from_secs(330);

/// It prints nothing.
const SILENCE: usize = 4096;

/// How the sibling says that there is no such unit.
pub const NO_SUCH_UNIT: u8 = 4;

/// When a unit went down last, and when it came up last: microseconds since 1970, zero for never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// It began to stop, or died.
    pub left: u64,
    /// It was up again; before `left` where it is not.
    pub back: u64,
}

/// Asks the system's manager when `unit` was away last.
///
/// # Errors
/// It is not known.
pub fn unit_away(unit: &str) -> io::Result<Away> {
    let mut command = Command::new(ASKED);
    command.args(["unit-away", unit]);
    let (status, said) = bounded::child(&mut command, Instant::now() + PATIENCE, SILENCE)?;
    if !status.success() {
        return Err(io::Error::other(format!("{ASKED} unit-away {unit} ended with {status}")));
    }
    Ok(serde_json::from_slice(&said)?)
}

/// What to do with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start it, and wait until that has ended.
    Start,
    /// Start it, without waiting.
    Queue,
    /// Start it, without waiting; one that runs is stopped before.
    Renew,
    /// Stop it and start it again, and wait until that has ended; refused where others would go down with it.
    Restart,
    /// Stop it, without waiting.
    Stop,
    /// Stop it, and wait until that has ended.
    StopAndWait,
}

/// Has a unit started or stopped by the system's manager. Whether there is such a unit.
///
/// # Errors
/// It was not done; the sibling has said why.
pub fn order_unit(order: Order, unit: &str) -> io::Result<bool> {
    order_by(Path::new(ASKED), order, unit)
}

fn order_by(helper: &Path, order: Order, unit: &str) -> io::Result<bool> {
    let (verb, more) = match order {
        Order::Start => ("start-unit", None),
        Order::Queue => ("start-unit", Some("--no-wait")),
        Order::Renew => ("start-unit", Some("--renew")),
        Order::Restart => ("restart-unit", None),
        Order::Stop => ("stop-unit", None),
        Order::StopAndWait => ("stop-unit", Some("--wait")),
    };
    let mut command = Command::new(helper);
    command.args([verb, unit]).args(more);
    let (status, _) = bounded::child(&mut command, Instant::now() + PATIENCE, SILENCE)
        .map_err(|error| io::Error::new(error.kind(), format!("run {}: {error}", helper.display())))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(code) if code == i32::from(NO_SUCH_UNIT) => Ok(false),
        _ => Err(io::Error::other(format!("{} {verb} {unit} ended with {status}", helper.display()))),
    }
}

/// What starting and killing an undo takes.
pub(crate) const MARGIN: Duration = Duration::from_secs(30);

/// Has the system's manager start `unit` and waits until its work has ended, `limit` at most, which is the unit's
/// own; `tell` gets its status lines. Whether there is such a unit.
///
/// # Errors
/// It did not do its work; the sibling has said why.
pub(crate) fn run_unit(unit: &str, limit: Duration, tell: impl FnMut(&str)) -> io::Result<bool> {
    run_by(Path::new(ASKED), unit, limit, tell)
}

fn run_by(helper: &Path, unit: &str, limit: Duration, mut tell: impl FnMut(&str)) -> io::Result<bool> {
    let mut command = Command::new(helper);
    // The limits come one after the other: of the unit's manager, of the sibling, of this.
    let seconds = (limit + MARGIN / 3).as_secs().to_string();
    command.args(["run-unit", unit, "--seconds", &seconds]);
    let until = Instant::now() + limit + MARGIN * 2 / 3;
    let (status, ()) = bounded::stream(&mut command, &[], until, |output| {
        BufReader::new(output).lines().try_for_each(|line| {
            tell(&line?);
            Ok(())
        })
    })
    .map_err(|error| io::Error::new(error.kind(), format!("run {}: {error}", helper.display())))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(code) if code == i32::from(NO_SUCH_UNIT) => Ok(false),
        _ => Err(io::Error::other(format!("{} run-unit ended with {status}", helper.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_run_as_long_as_it_may_and_what_it_says_is_told() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let run = |script: &str, limit: Duration| {
            let helper = directory.path().join("helper");
            golden::script(&helper, script);
            let mut said = Vec::new();
            let ran = run_by(&helper, "u.service", limit, |line| said.push(line.to_owned()));
            (ran.map_err(|error| error.to_string()), said)
        };
        let minute = Duration::from_secs(60);
        let (ran, said) = run("echo \"$@\"; echo two", minute);
        assert_eq!((ran, said), (Ok(true), vec!["run-unit u.service --seconds 70".into(), "two".into()]));
        assert_eq!(run("exit 4", minute).0, Ok(false));
        let failed = run("exit 1", minute).0.expect_err("failed");
        assert!(failed.contains("run-unit ended with exit status: 1"), "{failed}");
    }

    #[test]
    fn what_was_not_done_is_an_error() {
        let order = |helper: &str| order_by(Path::new(helper), Order::Start, "a.socket");
        assert!(order("/bin/true").expect("is done"));
        let failed = order("/bin/false").expect_err("is not done").to_string();
        assert!(failed.contains("/bin/false start-unit a.socket ended with"), "{failed}");
        assert_eq!(order("/no/such/helper").expect_err("is not there").kind(), io::ErrorKind::NotFound);
    }
}
