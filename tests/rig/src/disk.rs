// SPDX-License-Identifier: MIT
//! Disk images.

use std::path::Path;

use anyhow::Result;

use crate::command::output_of;
use crate::room::Room;

/// Makes a disk that takes writes over one that must not change. `base` is an
/// absolute path and stays where it is.
pub fn overlay(tools: &Room, base: &Path, disk: &Path) -> Result<()> {
    output_of(
        tools
            .command("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(base)
            .arg(disk),
    )
    .map(drop)
}
