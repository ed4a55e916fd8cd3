//! What was asked of the run that begins: each in a file of its own, since systemd's jobs have no arguments.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use step::{IF_IDLE_REQUEST, Install, RESET_REQUEST, Root};

/// A run that is asked for: a reload of what is on disk where nothing else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// A reset of the GPUs that are named so, of all where none is.
    pub(crate) reset: Option<Vec<String>>,
    /// The version that the run puts on disk before it loads.
    pub(crate) exchange: Option<String>,
    /// Whether it may begin only if nobody loses work by it.
    pub(crate) if_idle: bool,
}

impl Asked {
    /// Reads it, and takes away what is for preflight alone: what becomes of this run, the next one is not it.
    ///
    /// # Errors
    /// It cannot be told, or is still there.
    pub(crate) fn take(root: &Root) -> Result<Self> {
        let asked = Self::read(root)?;
        remove(root)?;
        Ok(asked)
    }

    fn read(root: &Root) -> Result<Self> {
        Ok(Self {
            reset: text(root, RESET_REQUEST)?.map(|text| text.lines().map(str::to_owned).collect()),
            exchange: Install::pending(root)?.map(|install| install.version().to_owned()),
            if_idle: text(root, IF_IDLE_REQUEST)?.is_some(),
        })
    }
}

fn text(root: &Root, path: &str) -> Result<Option<String>> {
    let path = root.path(path);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Takes all requests away: the run that they were for is over, or has not begun.
///
/// # Errors
/// One is still there.
pub(crate) fn forget(root: &Root) -> Result<()> {
    remove(root)?;
    Install::withdraw(root)
}

fn remove(root: &Root) -> Result<()> {
    for path in [RESET_REQUEST, IF_IDLE_REQUEST] {
        let path = root.path(path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_and_forgotten() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert_eq!(Asked::read(&root).expect("reads"), Asked::default());
        forget(&root).expect("has nothing to forget");
        fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        fs::write(root.path(RESET_REQUEST), "0\nGPU-a\n").expect("writes");
        fs::write(root.path(IF_IDLE_REQUEST), "").expect("writes");
        Install::Slot { version: "535.1".into() }.ask(&root).expect("asks");
        let asked = Asked::take(&root).expect("reads");
        assert_eq!(asked.reset, Some(vec!["0".to_owned(), "GPU-a".to_owned()]));
        assert_eq!((asked.exchange.as_deref(), asked.if_idle), (Some("535.1"), true));
        // Killed now, it leaves no request for the next run; the installer's is another step's to read.
        let left = Asked::read(&root).expect("reads");
        assert_eq!(left, Asked { exchange: Some("535.1".into()), ..Asked::default() });
        forget(&root).expect("forgets");
        assert_eq!(Asked::read(&root).expect("reads"), Asked::default());
    }
}
