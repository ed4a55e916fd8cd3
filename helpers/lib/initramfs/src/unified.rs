// SPDX-License-Identifier: MIT
//! Unified kernel images: a program for UEFI that has the kernel's release and its initramfs in sections of their
//! own (the specification of systemd's UAPI group).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use object::read::ReadCache;
use object::{Object, ObjectSection};

/// No release is longer: uname(2) has 65 bytes for it.
const RELEASE: u64 = 128;

/// The release of the kernel in the unified image `path`; none where it is something else.
pub(crate) fn release(path: &Path) -> Option<String> {
    let (start, length) = section(path, ".uname")?;
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut text = String::new();
    file.take(length.min(RELEASE)).read_to_string(&mut text).ok()?;
    let text = text.trim_matches(['\0', '\n', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// Opens the initramfs `path`, which may be in a unified image.
///
/// # Errors
/// It cannot be read.
pub fn open(path: &Path) -> io::Result<io::Take<File>> {
    let mut file = File::open(path)?;
    match section(path, ".initrd") {
        Some((start, length)) => {
            file.seek(SeekFrom::Start(start))?;
            Ok(file.take(length))
        }
        // One without an initramfs.
        None if section(path, ".uname").is_some() => Ok(file.take(0)),
        None => Ok(file.take(u64::MAX)),
    }
}

/// Where the section `name` is in the file, and how long; none where there is none, or the file is no program.
fn section(path: &Path, name: &str) -> Option<(u64, u64)> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let program = object::read::pe::PeFile64::parse(&cache).ok()?;
    program.section_by_name(name)?.file_range()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_unified_image_is_read() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("a.efi");
        let content = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("writes");
            let mut found = Vec::new();
            open(&path).expect("opens").read_to_end(&mut found).expect("reads");
            (release(&path), found)
        };
        let image = golden::unified("6.1.0-50-amd64", b"070701 and so on");
        assert_eq!(content(&image), (Some("6.1.0-50-amd64".into()), b"070701 and so on".to_vec()));
        // An initramfs by itself, and what is cut off.
        assert_eq!(content(b"070701"), (None, b"070701".to_vec()));
        for cut in 0..image.len() {
            content(&image[..cut]);
        }
    }
}
