// SPDX-License-Identifier: MIT
//! Where the linker looks, and which libraries there carry a driver's version in their names.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use modules::is_driver_version;
use step::Root;

use crate::{HEALED, tree};

/// Where the linker looks in any case (ld.so(8)).
const DEFAULT: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];

/// Folders below those in which the driver has libraries that are not the linker's to find.
const BELOW: [&str; 5] = ["nvidia", "vdpau", "gbm", "tls", "xorg"];

/// Libraries that no driver is without.
const TELLING: [&str; 3] = ["libnvidia-ml", "libcuda", "libnvidia-cfg"];

/// The directories in which libraries of a driver are.
///
/// # Errors
/// The linker's configuration, or a directory, cannot be read.
pub(crate) fn directories(root: &Root) -> Result<BTreeSet<PathBuf>> {
    let mut named: Vec<PathBuf> = DEFAULT.iter().map(PathBuf::from).collect();
    configured(root, Path::new("/etc/ld.so.conf"), &mut named, 0)?;
    let mut found = BTreeSet::new();
    for directory in named {
        // The same directory may have several names, as /lib has on a merged /usr.
        let Some(directory) = tree::plain(root, &directory.join("x")) else { continue };
        let directory = directory.parent().unwrap_or(Path::new("/")).to_owned();
        // Ours, of a driver that is not on disk.
        if directory.starts_with(HEALED) {
            continue;
        }
        // CUDA's forward compatibility: libraries of a driver's version that are no driver's, and stay
        // whatever the driver is.
        if directory.iter().any(|part| part.to_string_lossy().starts_with("compat")) {
            continue;
        }
        for below in BELOW {
            folders(root, directory.join(below), &mut found)?;
        }
        found.insert(directory);
    }
    Ok(found)
}

fn folders(root: &Root, directory: PathBuf, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let real = root.path(&directory);
    if !fs::symlink_metadata(&real).is_ok_and(|data| data.is_dir()) {
        return Ok(());
    }
    for path in tree::list(root, &directory)? {
        folders(root, path, found)?;
    }
    found.insert(directory);
    Ok(())
}

/// The version of the driver's libraries on disk, where the linker finds `path` of `version`: while the loaded
/// driver's are found before those, it is that of others.
///
/// # Errors
/// The linker's configuration, or a directory, cannot be read.
pub fn version_on_disk(root: &Root, path: &Path, version: Option<String>) -> Result<Option<String>> {
    if path.starts_with(HEALED) { library_on_disk(root) } else { Ok(version) }
}

/// The version of NVML's library on disk, whatever the linker finds first while that of another driver is healed;
/// none where there is none, or more than one.
///
/// # Errors
/// The linker's configuration, or a directory, cannot be read.
fn library_on_disk(root: &Root) -> Result<Option<String>> {
    let names = names(root)?;
    let found: BTreeSet<String> = names
        .iter()
        .filter_map(|name| name.strip_prefix("libnvidia-ml.so."))
        .filter(|version| is_driver_version(version))
        .map(str::to_owned)
        .collect();
    let mut found = found.into_iter();
    Ok(found.next().filter(|_| found.next().is_none()))
}

/// The names of all that is where libraries of a driver on disk are.
///
/// # Errors
/// The linker's configuration, or a directory, cannot be read.
pub(crate) fn names(root: &Root) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for directory in directories(root)? {
        let paths = tree::list(root, &directory)?;
        found.extend(paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())));
    }
    Ok(found)
}

/// The directories that a configuration file of the linker names (ldconfig(8)).
fn configured(root: &Root, file: &Path, found: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    let real = root.path(file);
    let text = match fs::read_to_string(&real) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", real.display())),
    };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t'])) {
            let pattern = file.parent().unwrap_or(Path::new("/etc")).join(pattern.trim());
            for path in matching(root, &pattern)? {
                // One that includes itself is the linker's trouble; we only have to end.
                if depth < 4 {
                    configured(root, &path, found, depth + 1)?;
                }
            }
        } else if line.starts_with('/') {
            found.extend(
                line.split([' ', '\t', ':', ',']).filter(|word| word.starts_with('/')).map(PathBuf::from),
            );
        }
    }
    Ok(())
}

/// The files that `pattern` names, which may have one asterisk, in its last part.
fn matching(root: &Root, pattern: &Path) -> Result<Vec<PathBuf>> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((head, tail)) = name.split_once('*') else { return Ok(vec![pattern.to_owned()]) };
    let mut found = tree::list(root, pattern.parent().unwrap_or(Path::new("/")))?;
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
    });
    Ok(found)
}

/// Whether `path` is a library of the driver's `version`, by its name.
pub(crate) fn is_of(path: &Path, version: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(version).is_some_and(|stem| stem.len() > ".so.".len() && stem.ends_with(".so."))
}

/// Whether the library `path`, whose name ends with a driver's version, is the driver's by the rest of its
/// name: `libGLX_nvidia`, `libcuda`, `libnvcuvid`.
pub(crate) fn is_nvidias(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split_once(".so.").map_or("", |(stem, _)| stem);
    stem.contains("nvidia") || stem.starts_with("libcuda") || stem.starts_with("libnv")
}

/// The driver's version in the name of one of its libraries: `libcuda.so.535.261.03` has it.
pub(crate) fn version_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let version = TELLING.iter().find_map(|stem| name.strip_prefix(stem)?.strip_prefix(".so."))?;
    is_driver_version(version).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_names_is_looked_into() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let write = |path: &str, text: &str| golden::write(&root, path, text);
        write("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
        write("/etc/ld.so.conf.d/a.conf", "# ours\n/opt/driver/lib:/opt/other # two\n/opt/cuda/compat\n");
        write("/etc/ld.so.conf.d/a.conf.bak", "/opt/bak\n");
        for path in [
            "/usr/lib/nvidia/current/x",
            "/opt/driver/lib/x",
            "/opt/other/x",
            "/opt/bak/x",
            "/opt/cuda/compat/x",
        ] {
            write(path, "");
        }
        std::os::unix::fs::symlink("usr/lib", root.path("/lib")).expect("links");
        let found: Vec<_> = directories(&root).expect("reads").into_iter().collect();
        let expected =
            ["/opt/driver/lib", "/opt/other", "/usr/lib", "/usr/lib/nvidia", "/usr/lib/nvidia/current"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn a_library_carries_the_whole_version() {
        for (name, expected) in [
            ("libcuda.so.535.261.03", true),
            ("libcuda.so.1", false),
            ("libcuda.so.1535.261.03", false),
            (".so.535.261.03", false),
            ("nvidia-535.261.03", false),
        ] {
            assert_eq!(is_of(&Path::new("/usr/lib").join(name), "535.261.03"), expected, "{name}");
        }
        let version = |name: &str| version_of(Path::new(name));
        assert_eq!(version("/usr/lib/libcuda.so.570.10").as_deref(), Some("570.10"));
        for name in [
            "libcuda.so.1",
            "libcuda.so.1.1",
            "libcuda.so.535.x",
            "libcuda.so.535.",
            "libcudart.so.12.4",
            "libcuda.so",
        ] {
            assert_eq!(version(name), None, "{name}");
        }
    }
}
