// SPDX-License-Identifier: MIT
//! Loading one module from a known file.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use step::Root;

use crate::disk::{Disk, File};
use crate::loaded::{State, loaded};
use crate::watched::{Ended, in_child};

/// Where a module is loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What the running kernel's module directory has.
    Disk(File),
    /// What is in a slot, for the undo.
    Slot(File),
}

impl Source {
    /// The file.
    pub fn file(&self) -> &File {
        match self {
            Source::Disk(file) | Source::Slot(file) => file,
        }
    }
}

/// Loads `source`, past the gate, until `until` at most, and reads back that it is what is loaded now.
///
/// What the file needs from the rest of the kernel is loaded first. The driver's own modules are
/// the caller's to load in order: each of them is in the gate.
///
/// # Errors
/// The kernel's errno with what it commonly means, a module that is stuck in its init function, or the module
/// that is loaded is another one.
pub fn load(root: &Root, disk: &Disk, source: &Source, until: Instant) -> Result<()> {
    let file = source.file();
    if let Source::Disk(file) = source {
        for needed in disk.needs(root, file)? {
            if loaded(root, &needed.name)?.is_none() {
                insert(disk, &needed, until)?;
            }
        }
    }
    insert(disk, file, until)?;
    match loaded(root, &file.name)? {
        Some(now) if now.state != State::Live => bail!("{}", now.trouble().unwrap_or_default()),
        Some(now) if file.is(&now.module) => Ok(()),
        Some(now) => bail!(
            "{} is loaded in version {}, not {} of {}",
            file.name,
            now.module.version.as_deref().unwrap_or("unknown"),
            file.version.as_deref().unwrap_or("unknown"),
            file.path.display()
        ),
        None => bail!("{} is not there after it was loaded from {}", file.name, file.path.display()),
    }
}

fn insert(disk: &Disk, file: &File, until: Instant) -> Result<()> {
    match in_child(until, || disk.insert(&file.path, &file.options))? {
        Ended::Back(Ok(())) => Ok(()),
        // It was loaded in the meantime; whether it is the right one is read back.
        Ended::Back(Err(Errno::EEXIST)) => Ok(()),
        Ended::Back(Err(errno)) => Err(errno).with_context(|| {
            let options = if file.options.is_empty() {
                String::new()
            } else {
                format!(" with options {:?}", file.options)
            };
            format!("load {}{options}{}", file.path.display(), meaning(errno))
        }),
        Ended::Stuck(stuck) => bail!(
            "{} is stuck on its way into the kernel (process {}); reboot the machine: {}",
            file.name,
            stuck.pid,
            stuck.stack
        ),
    }
}

/// What an errno of the module loader commonly means (kernel/module/main.c).
fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOEXEC => " (built for another kernel, or no module at all)",
        Errno::ENOENT => " (needs a symbol that the kernel or another module does not have)",
        Errno::EINVAL => " (an option or another module of the driver does not fit it)",
        Errno::EKEYREJECTED | Errno::ENOKEY | Errno::EPERM => " (its signature is not accepted)",
        Errno::ENODEV => " (it supports none of the GPUs)",
        Errno::EBUSY => " (another copy of it is on its way in or out)",
        _ => "",
    }
}
