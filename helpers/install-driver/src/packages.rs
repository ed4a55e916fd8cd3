// SPDX-License-Identifier: MIT
//! A package manager that began after preflight had looked: it may be writing the same files.

use std::time::Duration;

use anyhow::{Result, bail};
use request::wait_for_packages;
use step::Context;

/// A part of what the unit has (TimeoutStartSec=): the installer needs the rest.
const BEFORE: Duration = Duration::from_secs(15 * 60);

/// What the undo waits (TimeoutStopSec= has to last for the files as well): the workloads are out until it
/// is done.
const BACK: Duration = Duration::from_secs(2 * 60);

/// Waits until no package manager is at work, before another driver is put on disk.
///
/// # Errors
/// One has been at work all the time: no file was touched.
pub(crate) fn wait(context: &Context) -> Result<()> {
    match wait_for_packages(context, BEFORE)? {
        None => Ok(()),
        Some(busy) => bail!(
            "a package manager has been at work for {} minutes: {busy}; let it finish, then start again",
            BEFORE.as_secs() / 60
        ),
    }
}

/// The same for the undo, which has to go on in any case.
pub(crate) fn wait_a_little(context: &Context) {
    let goes_on = "the driver's files are put back nevertheless";
    match wait_for_packages(context, BACK) {
        Ok(None) => {}
        Ok(Some(busy)) => context.warn(format!("a package manager is still at work, {goes_on}: {busy}")),
        Err(error) => {
            context.warn(format!("whether a package manager is at work is not known, {goes_on}: {error:#}"));
        }
    }
}
