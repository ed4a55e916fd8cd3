// SPDX-License-Identifier: MIT
//! Where no reload can help, since the driver that is installed has no modules for the running kernel.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use step::{Reason, Root};

use crate::disk::{Disk, File};
use crate::loaded::driver_version;
use crate::managed::managed_by_container;
use crate::manager::Manager;
use crate::remedy::{for_running, lrm_package, removal};
use crate::{DRIVER, kernels, release};

/// The driver's module for a kernel that does not run.
struct Elsewhere {
    kernel: String,
    file: File,
}

/// Why the driver that is loaded cannot be unloaded on the running kernel, and what helps. None where it can, or
/// is not loaded.
///
/// # Errors
/// What is loaded cannot be read.
pub fn cannot_unload(root: &Root) -> Result<Option<Reason>> {
    match graph::module(root, DRIVER)? {
        // The kernel has the file where it was built with CONFIG_MODULE_UNLOAD (kernel/module/sysfs.c).
        Some(module) if module.refcount.is_none() => Ok(Some(Reason::new(
            format!(
                "kernel {} cannot unload modules: it was built without CONFIG_MODULE_UNLOAD",
                release(root)?
            ),
            "boot a kernel that has the driver you want, by kexec or a reboot",
        ))),
        _ => Ok(None),
    }
}

/// Why no reload can help now, and what does, in the order in which it helps: the modules for the running
/// kernel first, then another kernel. None where a reload may help, or where there is no driver at all.
///
/// `library` is the version of the driver's libraries, where there are some.
///
/// # Errors
/// What is loaded or on disk cannot be read.
pub fn out_of_reach(root: &Root, library: Option<&str>) -> Result<Option<Reason>> {
    // One that a container brought is not on the host's disk.
    if managed_by_container(root)?.is_some() {
        return Ok(None);
    }
    let loaded = driver_version(root)?;
    let running = release(root)?;
    let disk = Disk::open(root)?;
    // A file that cannot be read is another matter, and reported where it is judged.
    let Ok(here) = disk.find(DRIVER) else { return Ok(None) };
    let here = here.filter(|file| file.path.exists());
    let wanted = match (&here, library) {
        // The libraries came, and the modules for this kernel did not. Where those did, there is a reload to do;
        // and where the libraries are the older ones, those are to come yet.
        (Some(file), Some(library))
            if loaded.is_some()
                && file.version.as_deref().is_some_and(|version| numbers(version) < numbers(library))
                && shadowed(root, library)?.is_none() =>
        {
            Some(library)
        }
        (Some(_), _) => return Ok(None),
        (None, library) => library,
    };
    let mut elsewhere = elsewhere(root, &running, wanted)?;
    if here.is_none() && elsewhere.is_none() {
        elsewhere = self::elsewhere(root, &running, None)?;
    }
    let is_gone = kernels::is_gone(disk.directory());
    if here.is_none()
        && !is_gone
        && let Some(file) = of_driver(&disk)?.first()
    {
        return Ok(Some(Reason::new(
            format!(
                "{} is there, and the index in which modprobe looks does not have it",
                file.path.display()
            ),
            format!("`depmod {running}`, then reload"),
        )));
    }
    let what = match (&here, &elsewhere, &loaded) {
        // Where the system is replaced as a whole, its modules came along.
        (Some(file), None, _) if Manager::of(root) == Manager::Image => format!(
            "driver {} is installed with another system than the one that was booted, whose modules are of {}",
            library.unwrap_or("of unknown version"),
            version(file)
        ),
        // An upgrade half done: the modules may yet come.
        (Some(_), None, _) => return Ok(None),
        // The machine has no driver.
        (None, None, None) => return Ok(None),
        (Some(file), Some(found), _) => format!(
            "driver {} is installed for kernel {} only; {running} runs, and its modules are of {}",
            version(&found.file),
            found.kernel,
            version(file)
        ),
        (None, Some(found), None) => format!(
            "driver {} is installed for kernel {} only, and {running} runs, for which there is no file on disk for {DRIVER}",
            version(&found.file),
            found.kernel
        ),
        (None, ..) if is_gone => {
            format!(
                "{} is gone: the modules of the running kernel are not installed any more",
                root_path(root, disk.directory())
            )
        }
        (None, Some(found), Some(_)) => format!(
            "driver {} is installed for kernel {} only, and there is no file on disk for {DRIVER} and kernel {running}, which runs",
            version(&found.file),
            found.kernel
        ),
        (None, None, Some(loaded)) => format!(
            "there is no file on disk for {DRIVER} and kernel {running}, though driver {loaded} is loaded: it was removed, or loaded from elsewhere"
        ),
    };
    let unlinked = if here.is_none() { unlinked(disk.directory()) } else { None };
    let as_there = elsewhere.as_ref().map(|found| found.file.path.as_path());
    let first = match &unlinked {
        Some(branch) => Some(format!(
            "`dpkg --configure -a`, which links the modules of {}",
            lrm_package(branch, &running)
        )),
        None => for_running(root, as_there, &running, disk.directory(), is_gone),
    };
    let first = first.map(|first| match loaded {
        Some(_) => format!("{first}, then reload"),
        None => format!("{first}, then `modprobe {DRIVER}`"),
    });
    let second = match &elsewhere {
        Some(found) => format!("boot kernel {}, by kexec or a reboot", found.kernel),
        None => "a reboot alone does not help: no other kernel has the driver either".to_owned(),
    };
    let remedy = match (first, &elsewhere) {
        (Some(first), Some(_)) => format!("{first}; or {second}"),
        (Some(first), None) => format!("{first}; {second}"),
        (None, Some(_)) => second,
        (None, None) if here.is_some() => "boot the system that is installed".to_owned(),
        (None, None) => {
            "load it again the way it was loaded, or boot a system that has the driver: no kernel of this one has it".to_owned()
        }
    };
    Ok(Some(Reason::new(what, remedy)))
}

fn version(file: &File) -> &str {
    file.version.as_deref().unwrap_or("of unknown version")
}

/// A module that is on disk for the running kernel and would not be loaded: where several packages have files for one
/// kernel, depmod takes one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadowed {
    /// The file that would be loaded.
    pub taken: PathBuf,
    /// The one that would not.
    pub other: PathBuf,
    /// What takes the former away, in words.
    pub remedy: String,
}

/// The driver's module of `version` for the running kernel, where another would be loaded.
///
/// # Errors
/// The modules on disk cannot be read.
pub fn shadowed(root: &Root, version: &str) -> Result<Option<Shadowed>> {
    let disk = Disk::open(root)?;
    let Some(taken) = disk.find(DRIVER)? else { return Ok(None) };
    let is_it = |file: &File| file.path != taken.path && file.version.as_deref() == Some(version);
    let Some(other) = of_driver(&disk)?.into_iter().find(is_it) else { return Ok(None) };
    let remedy = removal(root, &taken, &release(root)?);
    Ok(Some(Shadowed { taken: taken.path, other: other.path, remedy }))
}

/// All files that are the driver's main module, whether the index has them or not.
fn of_driver(disk: &Disk) -> Result<Vec<File>> {
    let (mut found, mut todo) = (Vec::new(), vec![disk.directory().to_owned()]);
    while let Some(directory) = todo.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", directory.display()))?;
            let (path, name) = (entry.path(), entry.file_name());
            // No link is followed to a folder: `build` leads to the kernel's headers.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(path);
                continue;
            }
            let name = name.to_string_lossy();
            if name.starts_with(DRIVER)
                && name.contains(".ko")
                && let Ok(file) = disk.inspect(&path)
                && file.name == DRIVER
            {
                found.push(file);
            }
        }
    }
    Ok(found)
}

/// As it is called on the machine.
fn root_path(root: &Root, path: &Path) -> String {
    Path::new("/").join(path.strip_prefix(root.path("/")).unwrap_or(path)).display().to_string()
}

/// The driver's module for another kernel: of version `wanted`, where one is; the one for the latest kernel.
fn elsewhere(root: &Root, running: &str, wanted: Option<&str>) -> Result<Option<Elsewhere>> {
    let mut kernels: Vec<String> = kernels::kernels(root)?.into_iter().collect();
    kernels.retain(|kernel| kernel != running && !kernels::is_gone(&kernels::directory(root, kernel)));
    kernels.sort_by_key(|kernel| std::cmp::Reverse(numbers(kernel)));
    for kernel in kernels {
        // Other kernels' files are no matter of this one: what cannot be read is not there.
        if let Ok(disk) = Disk::of_kernel(root, &kernel)
            && let Ok(Some(file)) = disk.find(DRIVER)
            && file.path.exists()
            && wanted.is_none_or(|wanted| file.version.as_deref() == Some(wanted))
        {
            return Ok(Some(Elsewhere { kernel, file }));
        }
    }
    Ok(None)
}

/// The numbers in a version or a kernel's release, to tell the later of two.
fn numbers(text: &str) -> Vec<u64> {
    let digits = text.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|number| number.parse().ok()).collect()
}

/// The branch of which Ubuntu's package has brought the objects, in `bits/`, and not linked the modules: it
/// does that when it is configured.
fn unlinked(directory: &Path) -> Option<String> {
    let entries = fs::read_dir(directory.join("kernel")).ok()?;
    let mut branches = entries
        .flatten()
        .filter(|entry| entry.path().join("bits").is_dir())
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("nvidia-").map(ToOwned::to_owned));
    branches.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_kernel_is_known_by_its_numbers() {
        assert!(numbers("6.8.0-100-generic") > numbers("6.8.0-71-generic"));
        assert!(numbers("6.12.9+deb13-amd64") > numbers("6.1.0-50-amd64"));
    }
}
