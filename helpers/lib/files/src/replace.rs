// SPDX-License-Identifier: MIT
//! A file put in place whole: a reader finds the old one or the new one.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Puts `text` into the file `path` with these permission bits.
///
/// It is written under a name that cannot be foreseen and that must not be there; a link at `path` is
/// replaced, never followed.
///
/// # Errors
/// It cannot be written; then nothing has changed.
pub fn replace(path: &Path, mode: u32, text: &[u8]) -> io::Result<()> {
    put(path, mode, text, false)
}

/// The same for what must survive a power cut.
///
/// # Errors
/// It cannot be written; then nothing has changed.
pub fn replace_synced(path: &Path, mode: u32, text: &[u8]) -> io::Result<()> {
    put(path, mode, text, true)
}

fn put(path: &Path, mode: u32, text: &[u8], synced: bool) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Hidden, and without the suffix by which others find files in the folder.
    let mut new = tempfile::Builder::new().prefix(".nvidia-reload-").tempfile_in(folder)?;
    new.write_all(text)?;
    new.as_file().set_permissions(Permissions::from_mode(mode))?;
    if synced {
        new.as_file().sync_all()?;
    }
    new.persist(path).map_err(|error| error.error)?;
    if synced {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_link_in_the_way_is_replaced_and_its_target_stays() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("victim"), "precious").expect("writes");
        symlink(at("victim"), at("out.prom")).expect("links");
        for (text, write) in [("a", replace as fn(&Path, u32, &[u8]) -> _), ("b", replace_synced)] {
            write(&at("out.prom"), 0o640, text.as_bytes()).expect("writes");
            assert_eq!(fs::read_to_string(at("out.prom")).expect("reads"), text);
        }
        let data = fs::symlink_metadata(at("out.prom")).expect("is there");
        assert!(data.is_file() && data.mode() & 0o7777 == 0o640);
        assert_eq!(fs::read_to_string(at("victim")).expect("reads"), "precious");
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 2);
        assert!(replace(&at("none/out.prom"), 0o644, b"").is_err());
    }
}
