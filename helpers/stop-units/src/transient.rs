//! Units that vanish when they stop.
//!
//! What `systemd-run` makes has its file in the manager's own directory under /run, which removes
//! it with the unit. A copy, put where files of the administrator go, lets it be started again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ledger::Unit;
use step::Root;

/// Where the copies wait. Not under /run: the ledger is not there either, and one directory is
/// enough to be written to.
const KEPT: &str = "/var/lib/nvidia-reload/units";

/// Keeps the file of a unit that would vanish; others are left alone.
pub(crate) fn keep(root: &Root, user: Option<u32>, name: &str, fragment: &str) -> Result<()> {
    if !Path::new(fragment).starts_with(Path::new(&directory(user)).join("transient")) {
        return Ok(());
    }
    let from = root.path(fragment);
    let to = kept(root, user, name);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    fs::copy(&from, &to).with_context(|| format!("keep a copy of {}", from.display()))?;
    Ok(())
}

/// Puts a kept file where its manager finds it; false if there is none.
pub(crate) fn revive(root: &Root, unit: &Unit) -> Result<bool> {
    let from = kept(root, unit.user, &unit.name);
    if !from.exists() {
        return Ok(false);
    }
    let directory = root.path(directory(unit.user)).join(if unit.user.is_some() { "user" } else { "system" });
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let to = directory.join(&unit.name);
    // The manager looks for files it does not know where the time of a directory has changed, so
    // nothing has to be reloaded.
    fs::copy(&from, &to).with_context(|| format!("put back {}", to.display()))?;
    Ok(true)
}

/// Forgets what was kept of a unit.
pub(crate) fn forget(root: &Root, unit: &Unit) {
    // What is left over is overwritten by the next copy.
    let _ = fs::remove_file(kept(root, unit.user, &unit.name));
}

fn kept(root: &Root, user: Option<u32>, name: &str) -> PathBuf {
    let whose = user.map_or("system".to_owned(), |uid| uid.to_string());
    root.path(KEPT).join(whose).join(name)
}

/// The directory of a manager's files that do not outlive the boot.
fn directory(user: Option<u32>) -> String {
    user.map_or("/run/systemd".to_owned(), |uid| format!("/run/user/{uid}/systemd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(user: Option<u32>) -> Unit {
        Unit { name: "job.service".into(), user, role: "holder".into() }
    }

    #[test]
    fn a_transient_unit_comes_back_where_its_manager_looks() {
        for (user, transient, back) in [
            (None, "/run/systemd/transient/job.service", "/run/systemd/system/job.service"),
            (Some(7), "/run/user/7/systemd/transient/job.service", "/run/user/7/systemd/user/job.service"),
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            let file = root.path(transient);
            fs::create_dir_all(file.parent().expect("has a parent")).expect("creates");
            fs::write(&file, "[Service]\n").expect("writes");
            keep(&root, user, "job.service", transient).expect("keeps");
            fs::remove_file(&file).expect("removes");
            assert!(revive(&root, &unit(user)).expect("revives"));
            assert_eq!(fs::read_to_string(root.path(back)).expect("is back"), "[Service]\n");
            forget(&root, &unit(user));
            assert!(!revive(&root, &unit(user)).expect("looks"));
        }
    }

    #[test]
    fn an_installed_unit_needs_no_copy() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        keep(&root, None, "job.service", "/usr/lib/systemd/system/job.service").expect("keeps");
        assert!(!revive(&root, &unit(None)).expect("looks"));
    }
}
