//! Who starts a run: systemd does not keep who asked it for a job, so the command leaves a note for preflight.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use ledger::Starter;

use crate::Root;

/// The note, in a directory that is root's and empty after a boot.
const PATH: &str = "/run/nvidia-reload/started-by.json";

/// Leaves it, for the run that is started next.
///
/// # Errors
/// It cannot be written.
pub fn leave_starter(root: &Root, starter: &Starter) -> Result<()> {
    let path = root.path(PATH);
    let text = serde_json::to_vec(starter).context("encode who starts the run")?;
    files::replace(&path, 0o600, &text).with_context(|| format!("write {}", path.display()))
}

/// Takes it away; none where the run was started by `systemctl`, or by a unit.
///
/// # Errors
/// It is there, and cannot be read or removed.
pub fn take_starter(root: &Root) -> Result<Option<Starter>> {
    let path = root.path(PATH);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_of_one_run() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert_eq!(take_starter(&root).expect("looks"), None);
        fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        let starter = Starter { user: Some(1000), command: "nvidia-reload reload".into() };
        leave_starter(&root, &starter).expect("writes");
        assert_eq!(take_starter(&root).expect("reads"), Some(starter));
        assert_eq!(take_starter(&root).expect("looks"), None);
    }
}
