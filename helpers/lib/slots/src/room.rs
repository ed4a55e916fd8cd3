// SPDX-License-Identifier: MIT
//! Whether there is room for a driver's files.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::StatVfs;

/// What has to be left beside the files: others write meanwhile, too.
pub(crate) const MARGIN: u64 = 64 << 20;

/// A file system with less room than is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// Its topmost directory.
    pub place: PathBuf,
    /// The bytes that are free.
    pub free: u64,
    /// The bytes that are needed.
    pub needed: u64,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, free, needed) = (self.place.display(), self.free >> 20, self.needed.div_ceil(1 << 20));
        write!(f, "{place} has {free} MiB free, and {needed} are needed")
    }
}

/// Ends where `directory` has no room for `needed` bytes more. What is set aside for root stays: to keep a
/// driver is not worth that.
///
/// # Errors
/// It has not, or its file system cannot be asked.
pub(crate) fn ask(directory: &Path, needed: u64) -> Result<()> {
    let needed = needed.saturating_add(MARGIN);
    let (place, _) = file_system(directory)?;
    let free = bytes(&place, |data| data.f_bavail)?;
    if free < needed {
        bail!("{}: make room there", Short { place, free, needed });
    }
    Ok(())
}

/// The topmost directory of the file system that `path` is in, or will be, and the number of its device.
pub(crate) fn file_system(path: &Path) -> Result<(PathBuf, u64)> {
    let device = |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_dir).map(|data| data.dev());
    let mut above = path.ancestors().filter_map(|path| Some((path, device(path)?)));
    let (mut top, number) = above.next().with_context(|| format!("{} is nowhere", path.display()))?;
    for (next, _) in above.take_while(|(_, next)| *next == number) {
        top = next;
    }
    Ok((top.to_owned(), number))
}

pub(crate) fn bytes(place: &Path, blocks: impl Fn(&StatVfs) -> u64) -> Result<u64> {
    let data =
        rustix::fs::statvfs(place).with_context(|| format!("ask for the room in {}", place.display()))?;
    // Without any blocks at all, it keeps no account of them.
    Ok(if data.f_blocks == 0 { u64::MAX } else { blocks(&data).saturating_mul(data.f_frsize) })
}
