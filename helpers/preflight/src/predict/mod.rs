// SPDX-License-Identifier: MIT
//! Whether the driver on disk can serve: all that can be known of it while the loaded one still does.
//!
//! A refusal here keeps a machine from a change that it may need: it is for what is certain to fail. What
//! may fail is a warning, and what cannot be known is left to the load, which can be undone.

mod dkms;
mod elf;
mod files;
mod firmware;
mod gpus;
mod kernel;
mod linker;
mod measure;
mod options;
mod packages;
mod room;
mod signature;
mod unpack;
mod userland;

pub(crate) use dkms::is_newer;
pub(crate) use room::assess as room;

use std::rc::Rc;

use anyhow::Result;
use modules::{DRIVER, Declared, Disk, File, Loaded, release};
use step::Context;

use crate::findings::Findings;

/// A module file, and all that it declares.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) file: File,
    pub(crate) declared: Rc<Declared>,
}

impl Found {
    /// Whether it is NVIDIA's: other people's modules may hang on the driver.
    fn is_of_driver(&self) -> bool {
        holders::is_of_driver(&self.file.name)
    }
}

/// Judges the files for what is loaded. Returns those that are there.
///
/// # Errors
/// Something of the machine that has to be known cannot be read.
pub(crate) fn assess(
    context: &Context,
    disk: &Disk,
    loaded: &[Loaded],
    findings: &mut Findings,
) -> Result<Vec<File>> {
    let release = release(&context.root)?;
    let found = files::find(disk, loaded, &release, findings)?;
    files::of_one_version(&context.root, &found, findings);
    let mut to_load = files::needed(&context.root, disk, &found, findings)?;
    to_load.extend(found.iter().cloned());
    kernel::assess(context, disk, loaded, &to_load, &release, findings)?;
    signature::assess(context, disk, loaded, &to_load, findings)?;
    options::assess(&context.root, loaded, &found, findings)?;
    firmware::assess(&context.root, &found, &release, findings)?;
    gpus::assess(&context.root, &found, findings)?;
    if let Some(on_disk) = driver(&found).and_then(|driver| driver.file.version.as_deref()) {
        let now = loaded.iter().find(|module| module.module.name == DRIVER);
        let loaded = now.and_then(|driver| driver.module.version.as_deref());
        userland::assess(&context.root, userland::Change { loaded, on_disk }, findings)?;
        dkms::assess(&context.root, on_disk, &release, findings)?;
    }
    room::assess(&context.root, &found, findings)?;
    Ok(found.into_iter().map(|found| found.file).collect())
}

/// The driver itself among `found`.
fn driver(found: &[Found]) -> Option<&Found> {
    found.iter().find(|found| found.file.name == DRIVER)
}
