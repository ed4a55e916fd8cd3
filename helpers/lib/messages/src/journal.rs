// SPDX-License-Identifier: MIT
//! The journal of this boot, read by a journalctl of our own: see Cargo.toml.

use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xid::{Entry, read_export};

/// How long journalctl may take: it reads the journal of a whole boot, perhaps from a slow disk.
const TIME: Duration = Duration::from_secs(60);

/// Gives `each` the kernel's own entries of `boot`, in their order, those after `cursor` if there is one;
/// from the system's journal or from the files in `directory`.
///
/// # Errors
/// journalctl cannot be started, does not end well, or not in time.
pub(crate) fn read(
    directory: Option<&Path>,
    boot: &str,
    cursor: Option<&str>,
    each: &mut dyn FnMut(&Entry),
) -> Result<()> {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=export"]);
    // The rest is not asked for, and the cursor and the times are there anyway.
    command.arg("--output-fields=MESSAGE,_SOURCE_MONOTONIC_TIMESTAMP");
    command.args(directory.map(|directory| format!("--directory={}", directory.display())));
    command.args(cursor.map(|cursor| format!("--after-cursor={cursor}")));
    // journald sets these itself, from what the kernel gives it: no program can.
    command.args(["_TRANSPORT=kernel", "SYSLOG_FACILITY=0"]);
    command.arg(format!("_BOOT_ID={}", boot.replace('-', "")));
    let (status, ()) = bounded::stream(&mut command, &[], Instant::now() + TIME, |output| {
        read_export(BufReader::with_capacity(1 << 16, output), each)
    })
    .context("read the journal with journalctl")?;
    if !status.success() {
        bail!("journalctl ended with {status}");
    }
    Ok(())
}
