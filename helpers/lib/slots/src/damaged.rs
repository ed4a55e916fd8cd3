// SPDX-License-Identifier: MIT
//! Module files that cannot be read: after an install that was cut off, or whose blocks the power took before
//! they were on disk, `nvidia.ko` may be all zeros. Such a file is no driver, and must not keep anybody from
//! the undo.

use anyhow::Result;
use modules::{Disk, File, Unreadable};

/// The file that would serve as module `name`, where there is one that can be read. One that cannot is said.
///
/// # Errors
/// The module index cannot be read.
pub fn find(disk: &Disk, name: &str) -> Result<Option<File>> {
    match disk.find(name) {
        Err(error) if error.is::<Unreadable>() => {
            say(&format!("{error:#}"));
            Ok(None)
        }
        found => found,
    }
}

/// The driver's module files that can be read, and those that cannot, which are said.
///
/// # Errors
/// The module index cannot be read.
pub(crate) fn files(disk: &Disk) -> Result<(Vec<File>, Vec<Unreadable>)> {
    let (files, damaged) = disk.files()?;
    damaged.iter().for_each(|file| say(&file.to_string()));
    Ok((files, damaged))
}

fn say(what: &str) {
    step::say(&format!("a module on disk is no driver, and passed over: {what}"));
}
