// SPDX-License-Identifier: MIT
//! Whether there is room for a driver's files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::StatVfs;
use step::Root;

use crate::manifest::KeptFile;
use crate::{Slot, store};

/// What has to be left beside the files: others write meanwhile, too.
const MARGIN: u64 = 64 << 20;

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

impl Slot {
    /// The file systems that have no room for the files of this slot, where they belong: for those that are
    /// not there yet, each beside what it replaces.
    ///
    /// # Errors
    /// A file system cannot be asked.
    pub fn shortages(&self, root: &Root) -> Result<Vec<Short>> {
        let mut places: BTreeMap<u64, (PathBuf, u64, u64)> = BTreeMap::new();
        for file in self.manifest.regular() {
            let to = root.path(&file.path);
            let now = fs::symlink_metadata(&to).ok().filter(fs::Metadata::is_file);
            if now.as_ref().is_some_and(|now| is_in_place(now, file)) {
                continue;
            }
            let (place, device) = file_system(&to)?;
            let (_, more, largest) = places.entry(device).or_insert((place, 0, 0));
            *more += file.size.saturating_sub(now.map_or(0, |now| now.size()));
            *largest = file.size.max(*largest);
        }
        let mut short = Vec::new();
        for (place, more, largest) in places.into_values() {
            let needed = more + largest + MARGIN;
            // What is set aside for root is for this, if for anything.
            let free = bytes(&place, |data| data.f_bfree)?;
            if free < needed {
                short.push(Short { place, free, needed });
            }
        }
        Ok(short)
    }
}

/// Told by size and time, as fast as that has to be.
fn is_in_place(now: &fs::Metadata, file: &KeptFile) -> bool {
    now.size() == file.size && store::modified_nsec(now) == file.modified_nsec
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
fn file_system(path: &Path) -> Result<(PathBuf, u64)> {
    let device = |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_dir).map(|data| data.dev());
    let mut above = path.ancestors().filter_map(|path| Some((path, device(path)?)));
    let (mut top, number) = above.next().with_context(|| format!("{} is nowhere", path.display()))?;
    for (next, _) in above.take_while(|(_, next)| *next == number) {
        top = next;
    }
    Ok((top.to_owned(), number))
}

fn bytes(place: &Path, blocks: impl Fn(&StatVfs) -> u64) -> Result<u64> {
    let data =
        rustix::fs::statvfs(place).with_context(|| format!("ask for the room in {}", place.display()))?;
    // Without any blocks at all, it keeps no account of them.
    Ok(if data.f_blocks == 0 { u64::MAX } else { blocks(&data).saturating_mul(data.f_frsize) })
}
