// SPDX-License-Identifier: MIT
//! A driver that lives in a container is loaded and unloaded by that container: the host's disk has none.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use step::{Reason, Root};

/// Where the GPU operator's container has its root file system on the host.
const DRIVER: &str = "/run/nvidia/driver";

/// More folders than these are no remains.
const MOST_FOLDERS: usize = 1000;

/// That the driver is managed from a container, and what helps then; none where it is the host's. Folders alone
/// say nothing: what the GPU operator runs on hosts with a driver of their own makes them and leaves them empty,
/// and so does a driver that is gone.
///
/// # Errors
/// The folder cannot be looked into.
pub fn managed_by_container(root: &Root) -> Result<Option<Reason>> {
    let (top, path) = (root.path("/"), root.path(DRIVER));
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    // A link to the host's own root says that the driver is the host's.
    let is_hosts = identity(&path).is_some_and(|driver| identity(&top) == Some(driver));
    Ok((!is_hosts && holds_files(&path)?).then(|| {
        Reason::new(
            format!("{DRIVER} holds a driver: it is managed from a container"),
            "let the GPU operator change it",
        )
    }))
}

/// Whether there is anything but folders below `top`. A driver's root has files near its top.
fn holds_files(top: &Path) -> Result<bool> {
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Gone meanwhile, or never there.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("look into {}", folder.display())),
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("look into {}", folder.display()))?;
            let kind = entry.file_type().with_context(|| format!("look at {}", entry.path().display()))?;
            if !kind.is_dir() || folders.len() >= MOST_FOLDERS {
                return Ok(true);
            }
            folders.push(entry.path());
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_folders_of_an_operator_that_is_gone_are_no_driver() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let is_managed = || managed_by_container(&root).expect("looks").is_some();
        assert!(!is_managed(), "it is not there");
        for folder in ["", "/dev", "/usr/bin", "/lib/modules/6.1"] {
            fs::create_dir_all(root.path(format!("/run/nvidia/driver{folder}"))).expect("creates");
            assert!(!is_managed(), "{folder}");
        }
        fs::write(root.path("/run/nvidia/driver/usr/bin/nvidia-smi"), "").expect("writes");
        assert!(is_managed());
        fs::remove_dir_all(root.path("/run/nvidia/driver")).expect("removes");
        std::os::unix::fs::symlink(directory.path(), root.path("/run/nvidia/driver")).expect("links");
        fs::write(root.path("/file"), "").expect("writes");
        assert!(!is_managed(), "the host's own");
    }
}
