// SPDX-License-Identifier: MIT
//! What started a run: one document, since a job of systemd does not say who asked for it.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use ledger::Starter;
use serde::{Deserialize, Serialize};

use crate::{Root, monotonic_usec};

/// The document, in a directory that is empty after a boot. Preflight takes it away as it reads it.
const PATH: &str = "/run/nvidia-reload/started-by.json";

/// Preflight begins as soon as the job is there. An older document is of a command that came to nothing.
const FRESH_USEC: u64 = 60_000_000;

/// What the kernel says where no login led to a process.
const NO_LOGIN: u32 = u32::MAX;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    made_usec: u64,
    starter: Starter,
}

/// Leaves for the run that is about to be started that this process starts it, by `command`.
///
/// # Errors
/// It cannot be written.
pub fn announce_start(root: &Root, command: &str) -> Result<()> {
    let starter = Starter { command: command.to_owned(), unit: unit(root), login: login(root) };
    leave(root, &Document { made_usec: monotonic_usec(), starter })
}

/// Takes that back: the run was not started.
///
/// # Errors
/// It cannot be removed.
pub fn withdraw_start(root: &Root) -> Result<()> {
    let path = root.path(PATH);
    files::remove(&path).map(drop).with_context(|| format!("remove {}", path.display()))
}

/// What started the run that begins now, if it left word.
///
/// # Errors
/// It cannot be read or understood.
pub fn take_start(root: &Root) -> Result<Option<Starter>> {
    let path = root.path(PATH);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    withdraw_start(root)?;
    let left: Document =
        serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))?;
    let is_fresh = monotonic_usec().saturating_sub(left.made_usec) < FRESH_USEC;
    Ok(is_fresh.then_some(left.starter))
}

fn leave(root: &Root, document: &Document) -> Result<()> {
    let path = root.path(PATH);
    let text = serde_json::to_vec(document).context("encode what starts the run")?;
    files::replace(&path, 0o600, &text).with_context(|| format!("write {}", path.display()))
}

/// The user who had logged in, which no sudo and no su changes. What cannot be read is not known.
fn login(root: &Root) -> Option<u32> {
    let text = fs::read_to_string(root.path("/proc/self/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != NO_LOGIN)
}

/// The unit of the system in which this process runs.
pub(crate) fn unit(root: &Root) -> Option<String> {
    let text = fs::read_to_string(root.path("/proc/self/cgroup")).ok()?;
    let group = text.lines().find_map(|line| line.split_once("/system.slice/"))?.1;
    group.split('/').find(|name| name.ends_with(".service")).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        fs::create_dir_all(root.path("/proc/self")).expect("creates");
        (directory, root)
    }

    #[test]
    fn the_run_that_begins_finds_what_started_it_once() {
        let (_directory, root) = machine();
        assert_eq!(take_start(&root).expect("reads"), None);
        fs::write(root.path("/proc/self/loginuid"), "1000").expect("writes");
        fs::write(root.path("/proc/self/cgroup"), "0::/user.slice/user-1000.slice/session-3.scope\n")
            .expect("writes");
        announce_start(&root, "reload").expect("writes");
        let starter = Starter { command: "reload".into(), unit: None, login: Some(1000) };
        assert_eq!(take_start(&root).expect("reads"), Some(starter));
        assert_eq!(take_start(&root).expect("reads"), None);
        announce_start(&root, "reload").expect("writes");
        withdraw_start(&root).expect("removes");
        withdraw_start(&root).expect("there is none");
        assert_eq!(take_start(&root).expect("reads"), None);
    }

    #[test]
    fn a_service_has_no_login_and_an_old_document_is_of_no_run() {
        let (_directory, root) = machine();
        fs::write(root.path("/proc/self/loginuid"), "4294967295\n").expect("writes");
        fs::write(root.path("/proc/self/cgroup"), "0::/system.slice/nvidia-reload-upgrade.service\n")
            .expect("writes");
        announce_start(&root, "reload").expect("writes");
        let starter = take_start(&root).expect("reads").expect("is there");
        assert_eq!((starter.login, starter.unit.as_deref()), (None, Some("nvidia-reload-upgrade.service")));
        let made_usec = monotonic_usec().saturating_sub(FRESH_USEC + 1);
        if made_usec > 0 {
            leave(&root, &Document { made_usec, starter }).expect("writes");
            assert_eq!(take_start(&root).expect("reads"), None);
        }
        fs::write(root.path(PATH), "{").expect("writes");
        take_start(&root).expect_err("is not understood");
        assert_eq!(take_start(&root).expect("it was taken away"), None);
    }
}
