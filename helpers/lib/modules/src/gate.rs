// SPDX-License-Identifier: MIT
//! The gate: while it is shut, nothing can load the driver behind our back.
//!
//! The driver's modules carry `alias char-major-195-*`, and the nodes in /dev outlive them with mode
//! 0666: any process that opens one makes the kernel load the driver from disk. With an
//! unprivileged poller, ten of ten clean unloads were followed by such a load within a second.
//!
//! An `install NAME /bin/false` line stops that. The first such line wins, by file name over all of
//! modprobe's directories; hence the `00-`. It lives in /run: a power cut opens it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ledger::{Object, Step};
use step::{Root, Undo};

/// The modprobe.d file.
pub const FILE: &str = "/run/modprobe.d/00-nvidia-reload.conf";

/// The marker that keeps units out which would load the driver or hold it: the shipped drop-ins
/// have `ConditionPathExists=!` on it.
pub const BUSY: &str = "/run/nvidia-reload/busy";

/// Whether the gate is shut.
///
/// # Errors
/// Its file cannot be looked for.
pub fn is_shut(root: &Root) -> Result<bool> {
    let path = root.path(FILE);
    path.try_exists().with_context(|| format!("look for {}", path.display()))
}

/// Shuts the gate for `names`, in all spellings that modprobe knows.
///
/// # Errors
/// A file cannot be written, or udev cannot be reached.
pub fn shut(root: &Root, names: &BTreeSet<String>) -> Result<()> {
    let mut text = String::from(
        "# The NVIDIA driver is being reloaded; nvidia-reload removes this file when it is done.\n",
    );
    for name in names {
        text.push_str(&format!("install {name} /bin/false\n"));
    }
    replace(&root.path(BUSY), b"")?;
    replace(&root.path(FILE), text.as_bytes())?;
    if root.is_system() {
        // udev loads modules by itself and keeps a view of modprobe.d of its own.
        reload_udev()?;
    }
    Ok(())
}

/// Opens the gate; one that is open stays so.
///
/// # Errors
/// A file cannot be removed. udev is informed in any case; that it could not be reached is not an error
/// then, since it looks again by itself after three seconds.
pub fn open(root: &Root) -> Result<()> {
    let mut result = Ok(());
    for path in [FILE, BUSY].map(|path| root.path(path)) {
        if let Err(error) = files::remove(&path) {
            result = Err(error).with_context(|| format!("remove {}", path.display()));
        }
    }
    if root.is_system()
        && let Err(error) = reload_udev()
    {
        step::say(&format!("{error:#}"));
    }
    result
}

/// Opens the gate that a run has shut, and notes that.
pub fn open_of(undo: &Undo) {
    if let Err(error) = open(&undo.context.root) {
        return undo.problem(format!("{error:#}"));
    }
    for act in undo.run.outstanding(Step::RmmodChain) {
        if matches!(act.object, Object::Gate { .. }) {
            undo.restored(act.id, &act.object);
        }
    }
}

fn replace(path: &Path, text: &[u8]) -> Result<()> {
    let directory = path.parent().context("has a parent")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    // modprobe reads only *.conf: a half-written file is never read.
    let new = path.with_extension("new");
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&new)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| fs::rename(&new, path));
    written.with_context(|| format!("write {}", path.display()))
}

/// How long udev may take to answer; udevadm gives up after the same time by itself.
const UDEV: Duration = Duration::from_secs(60);

fn reload_udev() -> Result<()> {
    let mut command = Command::new("udevadm");
    let status = bounded::run(command.args(["control", "--reload"]), Instant::now() + UDEV)
        .context("run udevadm, so that udev reads modprobe.d again")?;
    if !status.success() {
        bail!("udev did not read modprobe.d again: udevadm control --reload: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shut_and_open_are_inverses() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert!(!is_shut(&root).expect("looks"));
        shut(&root, &["nvidia".to_owned(), "nvidia_uvm".to_owned()].into()).expect("shuts");
        assert!(is_shut(&root).expect("looks"));
        let text = fs::read_to_string(root.path(FILE)).expect("reads");
        assert!(text.contains("\ninstall nvidia /bin/false\ninstall nvidia_uvm /bin/false\n"), "{text}");
        assert!(root.path(BUSY).exists());
        open(&root).expect("opens");
        open(&root).expect("opens again");
        assert!(!is_shut(&root).expect("looks"));
        assert!(!root.path(BUSY).exists());
    }
}
