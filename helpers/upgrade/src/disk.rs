// SPDX-License-Identifier: MIT
//! What packages have left on disk, against what is loaded.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use gpu::{HELPER, Library, Question, ask_helper};
use modules::{
    DRIVER, Manager, Unreadable, cannot_unload, chain, driver_version, managed_by_container, out_of_reach,
};
use slots::version_on_disk;
use step::{Reason, Root};

/// The linker needs milliseconds.
const LINKER: Duration = Duration::from_secs(30);

/// How the disk is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// There is nothing to compare it with.
    NotLoaded,
    /// The driver is not the host's.
    Managed(Reason),
    /// What is loaded is what is on disk, in this version.
    Match(String),
    /// It holds no whole driver: an upgrade is not at its end, or has failed half-way.
    Unfinished(Reason),
    /// No reload can help: the driver that is installed has no modules for the running kernel.
    OutOfReach(Reason),
    /// It holds another driver than the one that is loaded, which the running kernel cannot unload.
    CannotUnload(Reason),
    /// It holds another driver than the one that is loaded.
    Differs,
}

/// Looks at it.
pub(crate) fn look(root: &Root) -> Result<Disk> {
    let library = match ask_helper(Path::new(HELPER), Question::Library, LINKER)? {
        Some(Library::Found { path, version }) => version_on_disk(root, &path, version)?,
        _ => None,
    };
    judge(root, library)
}

/// Judges it; the linker takes the libraries of version `library`.
pub(crate) fn judge(root: &Root, library: Option<String>) -> Result<Disk> {
    let loaded = chain(root)?;
    if loaded.is_empty() {
        return Ok(Disk::NotLoaded);
    }
    if let Some(reason) = managed_by_container(root)? {
        return Ok(Disk::Managed(reason));
    }
    if let Some(reason) = cannot_unload(root)? {
        // What programs link is what counts: the modules may have come from elsewhere than the disk.
        return Ok(match (library, driver_version(root)?) {
            (Some(library), Some(loaded)) if library == loaded => Disk::Match(loaded),
            _ => Disk::CannotUnload(reason),
        });
    }
    if let Some(reason) = out_of_reach(root, library.as_deref())? {
        return Ok(Disk::OutOfReach(reason));
    }
    let unfinished = |what: String| Disk::Unfinished(Reason::new(what, Manager::of(root).finish()));
    let disk = modules::Disk::open(root)?;
    let mut matches = true;
    // Modules of other people that hang on the driver have versions of their own.
    let mut version: Option<String> = None;
    // The driver itself is unloaded last.
    for module in loaded.iter().rev().map(|loaded| &loaded.module) {
        let is_of_driver = holders::is_of_driver(&module.name);
        let file = match disk.find(&module.name) {
            // Truncated, or half written: what is wrong with it preflight says.
            Err(error) if error.is::<Unreadable>() => return Ok(unfinished(format!("{error:#}"))),
            found => found?,
        };
        let Some(file) = file else {
            // Somebody's own, loaded by insmod, never was on disk. What becomes of it preflight says.
            if !is_of_driver {
                continue;
            }
            return Ok(unfinished(format!("there is no file on disk for {}", module.name)));
        };
        matches &= file.is(module);
        if !is_of_driver {
            continue;
        }
        match (&version, file.version) {
            (None, Some(first)) => version = Some(first),
            (Some(first), Some(other)) if *first != other => {
                return Ok(unfinished(format!(
                    "{DRIVER} is on disk in version {first}, and {} in {other}",
                    module.name
                )));
            }
            _ => {}
        }
    }
    let version = version.unwrap_or_default();
    if let Some(library) = library
        && library != version
    {
        return Ok(unfinished(format!("the modules on disk are {version} and the libraries {library}")));
    }
    Ok(if matches { Disk::Match(version) } else { Disk::Differs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_does_with_every_layout_what_is_expected() {
        golden::compare(&["request"], |machine| {
            let disk = judge(&machine.root, machine.library_version().map(str::to_owned)).expect("judges");
            let text = match disk {
                Disk::NotLoaded => "dropped, not loaded".to_owned(),
                Disk::Managed(reason) => format!("dropped, {}", reason.what),
                Disk::Match(version) => format!("dropped, {version} is loaded and on disk"),
                Disk::Unfinished(reason) => format!("waits for packages, then ends: {}", reason.what),
                Disk::OutOfReach(_) => "ends, not installed for this kernel".to_owned(),
                Disk::CannotUnload(_) => "ends, reboot required".to_owned(),
                Disk::Differs => "reloads when idle".to_owned(),
            };
            machine.line("request", &text)
        });
    }
}
