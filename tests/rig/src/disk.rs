//! Disk images.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::output_of;

/// Makes a disk that takes writes over one that must not change. `base` is an
/// absolute path and stays where it is.
pub fn overlay(base: &Path, disk: &Path) -> Result<()> {
    output_of(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(base)
            .arg(disk),
    )
    .map(drop)
}
