// SPDX-License-Identifier: MIT
//! Waiting for the package manager: a trigger fires a moment before its lock is free, and half an
//! upgrade is no driver.

use std::time::Duration;

use anyhow::Result;
use request::wait_for_packages;
use step::{Context, Reason, Stop};

/// An upgrade that builds modules takes minutes.
const TIME: Duration = Duration::from_secs(600);

/// Waits until no package manager is at work.
pub(crate) fn wait(context: &Context) -> Result<()> {
    let Some(busy) = wait_for_packages(context, TIME)? else { return Ok(()) };
    let minutes = TIME.as_secs() / 60;
    Err(Stop::Refused(vec![Reason::new(
        format!("a package manager has been at work for {minutes} minutes: {busy}"),
        "let the package manager finish, then start again",
    )])
    .into())
}
