// SPDX-License-Identifier: MIT
//! Whether there is room for the run: on disk for what is written down and saved, in memory for the modules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::statvfs::statvfs;
use step::Root;

use super::Found;
use crate::findings::Findings;

/// What a place has to have that a run writes to: the ledger of a run with a hundred containers has some
/// hundred KiB, the gate one.
const PLACES: [(&str, u64); 2] = [(LEDGER, 1 << 20), ("/run", 64 << 10)];

const LEDGER: &str = "/var/lib/nvidia-reload";

/// Looks at the places that are written to, and at the memory that is free.
///
/// # Errors
/// A file system or the kernel's word on memory cannot be read.
pub(crate) fn assess(root: &Root, found: &[Found], findings: &mut Findings) -> Result<()> {
    let modules: u64 =
        found.iter().filter_map(|one| fs::metadata(&one.file.path).ok()).map(|file| file.len()).sum();
    for (directory, least) in PLACES {
        let path = nearest(&root.path(directory));
        let free = free(&path)?;
        if free < least {
            findings.refuse(
                format!("{} is full: a run could not write down there what it takes", path.display()),
                "make room there, a few MiB will do",
            );
        } else if directory == LEDGER && free < least + modules {
            findings.warn(
                format!(
                    "{} has {} MiB left: the new driver's modules ({} MiB) cannot be saved to a slot",
                    path.display(),
                    free >> 20,
                    modules >> 20
                ),
                "make room there, or free it of what is not needed",
            );
        }
    }
    let path = root.path("/proc/meminfo");
    let memory = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // The kernel holds file and module for a moment. What the workloads free comes on top, so this is no
    // more than a warning.
    if let Some(available) = available(&memory).filter(|available| *available < 2 * modules) {
        findings.warn(
            format!(
                "{} MiB of memory are available, and the new modules may need {} MiB for a moment",
                available >> 20,
                (2 * modules) >> 20
            ),
            "free memory before the reload; if it fails, the run is rolled back",
        );
    }
    Ok(())
}

/// `path`, or the nearest directory above it that is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(path).to_owned()
}

/// The bytes that are left there for root.
fn free(path: &Path) -> Result<u64> {
    match statvfs(path) {
        // Without any blocks at all, it keeps no account of them.
        Ok(free) if free.blocks() == 0 => Ok(u64::MAX),
        Ok(free) => Ok(free.blocks_free().saturating_mul(free.fragment_size())),
        // It went in this moment, and is made again by what writes there.
        Err(nix::errno::Errno::ENOENT) => Ok(u64::MAX),
        Err(error) => Err(std::io::Error::from(error))
            .with_context(|| format!("ask for the room in {}", path.display())),
    }
}

/// `MemAvailable`, in bytes.
fn available(memory: &str) -> Option<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_on_memory_is_read() {
        assert_eq!(available("MemTotal: 1 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        for text in ["", "MemAvailable: x kB", "MemAvailable: 99999999999999999999 kB"] {
            assert_eq!(available(text), None, "{text}");
        }
    }
}
