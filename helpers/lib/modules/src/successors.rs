// SPDX-License-Identifier: MIT
//! The files that take the place of the modules that were loaded.

use anyhow::{Context, Result, bail};
use ledger::Module;

use crate::DRIVER;
use crate::disk::{Disk, File};

/// The files on disk for what was loaded, in the same order: all there, and those of the driver of one version.
/// While a package manager is at work there may be new files beside old ones, which do not fit each other.
///
/// # Errors
/// A file is missing or cannot be read, or not all are of one version.
pub fn successors(disk: &Disk, loaded: &[Module]) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for module in loaded {
        let file = disk.find(&module.name)?.with_context(|| {
            format!("{} was loaded, and the running kernel has no file for it on disk", module.name)
        })?;
        files.push(file);
    }
    of_one_version(loaded, &files)?;
    Ok(files)
}

/// What others have built on the driver has a version of its own, before as after.
fn of_one_version(loaded: &[Module], files: &[File]) -> Result<()> {
    let pairs = || loaded.iter().zip(files);
    let Some((old, new)) = pairs().find(|(module, _)| module.name == DRIVER) else { return Ok(()) };
    for (module, file) in pairs() {
        if module.version == old.version && file.version != new.version {
            let text = |file: &File| file.version.clone().unwrap_or_else(|| "unknown".into());
            bail!(
                "the driver on disk is half of one version and half of another: {} is version {}, {} is version {}",
                new.path.display(),
                text(new),
                file.path.display(),
                text(file)
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_of_one_version_and_others_have_theirs() {
        let module = |name: &str, version: &str| Module {
            name: name.into(),
            version: Some(version.into()),
            srcversion: None,
            parameters: Default::default(),
        };
        let file = |name: &str, version: &str| File {
            name: name.into(),
            alias: name.into(),
            path: format!("/{name}.ko").into(),
            version: Some(version.into()),
            srcversion: None,
            vermagic: None,
            options: String::new(),
        };
        let loaded = [module("nvidia", "535"), module("nvidia_uvm", "535"), module("gdrdrv", "2.4")];
        let files = |uvm: &str| [file("nvidia", "550"), file("nvidia_uvm", uvm), file("gdrdrv", "2.5")];
        of_one_version(&loaded, &files("550")).expect("fits");
        let error = of_one_version(&loaded, &files("535")).expect_err("is half and half").to_string();
        assert!(error.contains("/nvidia.ko is version 550, /nvidia_uvm.ko is version 535"), "{error}");
    }
}
