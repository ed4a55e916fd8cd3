//! Where no reload can help, since the driver that is installed has no modules for the running kernel.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use step::{Reason, Root};

use crate::disk::{Disk, File};
use crate::loaded::driver_version;
use crate::{DRIVER, release};

/// The driver's module for a kernel that does not run.
struct Elsewhere {
    kernel: String,
    file: File,
}

/// Why no reload can help now, and what does, in the order in which it helps: the modules for the running
/// kernel first, then another kernel. None where a reload may help, or where the driver is not loaded.
///
/// `library` is the version of the driver's libraries, where there are some.
///
/// # Errors
/// What is loaded or on disk cannot be read.
pub fn out_of_reach(root: &Root, library: Option<&str>) -> Result<Option<Reason>> {
    let Some(loaded) = driver_version(root)? else { return Ok(None) };
    let running = release(root)?;
    let disk = Disk::open(root)?;
    // A file that cannot be read is another matter, and told of where it is judged.
    let Ok(here) = disk.find(DRIVER) else { return Ok(None) };
    let here = here.filter(|file| file.path.exists());
    let wanted = match (&here, library) {
        // The libraries came, and the modules for this kernel did not. Where those did, there is a reload to do.
        (Some(file), Some(library))
            if file.version.as_deref() == Some(loaded.as_str()) && library != loaded =>
        {
            Some(library)
        }
        (Some(_), _) => return Ok(None),
        (None, library) => library,
    };
    let elsewhere = elsewhere(root, &running, wanted)?;
    let what = match (&here, &elsewhere) {
        // An upgrade half done: the modules may yet come.
        (Some(_), None) => return Ok(None),
        (Some(_), Some(found)) => format!(
            "driver {} is installed for kernel {} only; {running} runs, and its modules are of {loaded}",
            version(&found.file),
            found.kernel
        ),
        (None, _) if !disk.directory().exists() => format!(
            "{} is gone: the modules of the running kernel are not installed any more",
            root_path(root, disk.directory())
        ),
        (None, Some(found)) => format!(
            "driver {} is installed for kernel {} only, and there is no file on disk for {DRIVER} and kernel {running}, which runs",
            version(&found.file),
            found.kernel
        ),
        (None, None) => format!(
            "there is no file on disk for {DRIVER} and kernel {running}, though driver {loaded} is loaded: it was removed, or loaded from elsewhere"
        ),
    };
    let unlinked = if here.is_none() { unlinked(disk.directory()) } else { None };
    let as_there = elsewhere.as_ref().map(|found| found.file.path.as_path());
    let first = match &unlinked {
        Some(branch) => {
            format!("`dpkg --configure -a`, which links the modules of {}", lrm_package(branch, &running))
        }
        None => for_running(root, as_there, &running, !disk.directory().exists()),
    };
    let second = match &elsewhere {
        Some(found) => format!("or boot kernel {}, by kexec or a reboot", found.kernel),
        None => "a reboot alone does not help: no other kernel has the driver either".to_owned(),
    };
    Ok(Some(Reason::new(what, format!("{first}, then reload; {second}"))))
}

fn version(file: &File) -> &str {
    file.version.as_deref().unwrap_or("of unknown version")
}

/// The driver's module that would be loaded for the running kernel, and one of `version` that is there too and
/// would not: where the packages of several branches have files for one kernel, depmod takes one of them.
///
/// # Errors
/// The modules on disk cannot be read.
pub fn shadowed(root: &Root, version: &str) -> Result<Option<(PathBuf, PathBuf)>> {
    let disk = Disk::open(root)?;
    let Some(taken) = disk.find(DRIVER)? else { return Ok(None) };
    let mut todo = vec![disk.directory().to_owned()];
    while let Some(directory) = todo.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
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
                && path != taken.path
                && let Ok(file) = disk.inspect(&path)
                && file.name == DRIVER
                && file.version.as_deref() == Some(version)
            {
                return Ok(Some((taken.path, path)));
            }
        }
    }
    Ok(None)
}

/// As it is called on the machine.
fn root_path(root: &Root, path: &Path) -> String {
    Path::new("/").join(path.strip_prefix(root.path("/")).unwrap_or(path)).display().to_string()
}

/// The driver's module for another kernel: of version `wanted`, where one is; the one for the latest kernel.
fn elsewhere(root: &Root, running: &str, wanted: Option<&str>) -> Result<Option<Elsewhere>> {
    let directory = root.path("/lib/modules");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let mut kernels = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", directory.display()))?;
        kernels.push(entry.file_name().to_string_lossy().into_owned());
    }
    kernels.retain(|kernel| kernel != running);
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

/// The numbers in a kernel's release, to tell the later of two.
fn numbers(release: &str) -> Vec<u64> {
    let digits = release.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|number| number.parse().ok()).collect()
}

/// What brings the modules to the running kernel, as they came to the other one; where the kernel's own are
/// gone, those first.
fn for_running(root: &Root, as_there: Option<&Path>, running: &str, are_all_gone: bool) -> String {
    let mut directories = as_there.into_iter().flat_map(Path::iter).filter_map(|part| part.to_str());
    let branch = directories
        .clone()
        .skip_while(|directory| *directory != "kernel")
        .nth(1)
        .and_then(|directory| directory.strip_prefix("nvidia-"));
    if let Some(branch) = branch {
        let own = if are_all_gone { format!("linux-modules-{running} ") } else { String::new() };
        return format!("`apt install {own}{}`", lrm_package(branch, running));
    }
    let own = match are_all_gone {
        true => format!("install the modules of kernel {running} again, and "),
        false => String::new(),
    };
    if directories.any(|directory| directory == "dkms") || dkms_has_it(root) {
        return format!("{own}`dkms autoinstall -k {running}`, which needs that kernel's headers");
    }
    format!("{own}install the driver's modules for kernel {running}")
}

/// Ubuntu's package that has the modules in `kernel/nvidia-BRANCH`.
fn lrm_package(branch: &str, running: &str) -> String {
    // `570srv-open` is of linux-modules-nvidia-570-server-open.
    format!("linux-modules-nvidia-{}-{running}", branch.replacen("srv", "-server", 1))
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

/// Whether DKMS has a driver of NVIDIA's, under whatever name a distribution gave it.
fn dkms_has_it(root: &Root) -> bool {
    fs::read_dir(root.path("/var/lib/dkms")).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(DRIVER))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_named_as_the_modules_came() {
        let root = Root::at("/nowhere");
        let of = |path: &str| for_running(&root, Some(Path::new(path)), "6.8.0-60-generic", false);
        for (directory, package) in [
            ("nvidia-570", "linux-modules-nvidia-570-6.8.0-60-generic"),
            ("nvidia-570srv", "linux-modules-nvidia-570-server-6.8.0-60-generic"),
            ("nvidia-570-open", "linux-modules-nvidia-570-open-6.8.0-60-generic"),
            ("nvidia-570srv-open", "linux-modules-nvidia-570-server-open-6.8.0-60-generic"),
        ] {
            let remedy = of(&format!("/lib/modules/6.8.0-71-generic/kernel/{directory}/nvidia.ko"));
            assert!(remedy.contains(&format!("`apt install {package}`")), "{remedy}");
        }
        assert!(of("/lib/modules/6.1/updates/dkms/nvidia.ko.xz").starts_with("`dkms autoinstall -k 6.8"));
        assert!(of("/lib/modules/6.1/extra/nvidia.ko").starts_with("install the driver's modules"));
    }

    #[test]
    fn the_later_kernel_is_told_by_its_numbers() {
        assert!(numbers("6.8.0-100-generic") > numbers("6.8.0-71-generic"));
        assert!(numbers("6.12.9+deb13-amd64") > numbers("6.1.0-50-amd64"));
    }
}
