//! Loading one module from a known file.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use step::Root;

use crate::disk::{Disk, File};
use crate::loaded;

/// Where a module is loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What the running kernel's module directory has.
    Disk(File),
    /// What was kept for the way back.
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

/// Loads `source`, past the gate, and reads back that it is what serves now.
///
/// What the file needs from the rest of the kernel is loaded first. The driver's own modules are
/// the caller's to load in order: each of them is in the gate.
///
/// # Errors
/// The kernel's errno with what it commonly means, or the module that serves is another one.
pub fn load(root: &Root, disk: &Disk, source: &Source) -> Result<()> {
    let file = source.file();
    if let Source::Disk(file) = source {
        for needed in disk.needs(root, file)? {
            if loaded(root, &needed.name)?.is_none() {
                insert(disk, &needed)?;
            }
        }
    }
    insert(disk, file)?;
    match loaded(root, &file.name)? {
        Some(now) if file.is(&now.module) => Ok(()),
        Some(now) => bail!(
            "{} serves in version {}, not {} of {}",
            file.name,
            now.module.version.as_deref().unwrap_or("unknown"),
            file.version.as_deref().unwrap_or("unknown"),
            file.path.display()
        ),
        None => bail!("{} is not there after it was loaded from {}", file.name, file.path.display()),
    }
}

fn insert(disk: &Disk, file: &File) -> Result<()> {
    match disk.insert(&file.path, &file.options) {
        Ok(()) => Ok(()),
        // Somebody else loaded it in the meantime; whether it is the right one is read back.
        Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).with_context(|| {
            let options = if file.options.is_empty() {
                String::new()
            } else {
                format!(" with options {:?}", file.options)
            };
            format!("load {}{options}{}", file.path.display(), meaning(errno))
        }),
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
