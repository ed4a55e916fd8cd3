// SPDX-License-Identifier: MIT
//! Who may make or use slots: one at a time, and a run before everybody else.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context as _, Result};
use files::check_owner;
use step::{Context, Order, Root, order_unit};

use crate::DIRECTORY;

/// Beside the slots, not in their folder: everybody may read that, and who can open a file can lock it.
const LOCK: &str = "/var/lib/nvidia-reload/slots.lock";

/// What saves the driver at idle priority, a gigabyte at worst.
const SAVE: &str = "nvidia-reload-save-driver.service";

/// To save a driver is worth no more: the holder of the lock may be exchanging it.
const KEEP_TIME: Duration = Duration::from_secs(60);

/// What a run waits for [`SAVE`] after its unit was ordered to stop: that has 10 seconds.
const RUN_TIME: Duration = Duration::from_secs(30);

/// Keeps others from making or exchanging slots while the lock is held. For who saves the driver.
///
/// # Errors
/// Somebody else holds it for too long; or the folder cannot be made, or others than root can write to it.
pub fn lock_to_save(root: &Root) -> Result<File> {
    lock(root, KEEP_TIME, step::say)
}

/// The same for a step of a run, which comes first: a save that is under way is stopped.
///
/// # Errors
/// As above.
pub fn lock_for_run(context: &Context) -> Result<File> {
    lock(&context.root, RUN_TIME, |said| {
        context.status(said);
        context.info(said);
        if let Err(error) = order_unit(Order::Stop, SAVE) {
            context.warn(format!("{SAVE} is not stopped: {error}"));
        }
    })
}

fn lock(root: &Root, time: Duration, waiting: impl FnOnce(&str)) -> Result<File> {
    let directory = root.path(DIRECTORY);
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    check_owner(&directory)?;
    Ok(files::lock(&root.path(LOCK), time, waiting)?)
}
