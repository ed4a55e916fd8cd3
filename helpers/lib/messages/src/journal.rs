//! The journal of this boot, read by a journalctl of our own: see Cargo.toml.

use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use xid::{Entry, read_export};

/// Gives `each` the kernel's own entries of `boot`, in their order, those after `cursor` if there is one;
/// from the system's journal or from the files in `directory`.
///
/// # Errors
/// journalctl cannot be started, or does not end well.
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
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("start journalctl")?;
    let output = child.stdout.take().context("journalctl has a standard output")?;
    let read = read_export(BufReader::with_capacity(1 << 16, output), each);
    let status = child.wait().context("wait for journalctl")?;
    read.context("read the journal")?;
    if !status.success() {
        bail!("journalctl ended with {status}");
    }
    Ok(())
}
