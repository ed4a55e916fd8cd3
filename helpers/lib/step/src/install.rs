//! What a run is asked to put on disk between the unload and the load.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::Root;

/// The request, in a directory that is empty after a boot. preflight's unit takes it away at the end of
/// any run, so that one which was refused does not leave it to the next.
pub const REQUEST: &str = "/run/nvidia-reload/install.json";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Install {
    /// A driver that was kept.
    Slot {
        /// Its version.
        version: String,
    },
    /// NVIDIA's installer, checked and with modules built for the running kernel.
    Installer {
        /// The driver's version, as the file says.
        version: String,
        /// The file that is run.
        file: PathBuf,
        /// What it is given beside what it always is.
        arguments: Vec<String>,
    },
}

impl Install {
    /// The version that is asked for.
    pub fn version(&self) -> &str {
        match self {
            Install::Slot { version } | Install::Installer { version, .. } => version,
        }
    }

    /// Asks for it: the next run is to do it.
    ///
    /// # Errors
    /// Somebody has asked already, or the request cannot be written.
    pub fn ask(&self, root: &Root) -> Result<()> {
        let path = root.path(REQUEST);
        let text = serde_json::to_vec(self).context("encode the request")?;
        // Whole or not at all, and only if nothing is asked for already.
        let folder = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
        let mut new = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("create a file in {}", folder.display()))?;
        new.write_all(&text).with_context(|| format!("write {}", path.display()))?;
        match new.persist_noclobber(&path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                bail!("another install is asked for already: {}", path.display())
            }
            Err(error) => Err(error.error).with_context(|| format!("create {}", path.display())),
        }
    }

    /// What is asked for, if something is; it is not asked for any more then.
    ///
    /// # Errors
    /// The request cannot be read or taken away.
    pub fn take(root: &Root) -> Result<Option<Self>> {
        let asked = Self::pending(root);
        Self::withdraw(root)?;
        asked
    }

    /// What is asked for, if something is; it stays asked for.
    ///
    /// # Errors
    /// The request cannot be read.
    pub fn pending(root: &Root) -> Result<Option<Self>> {
        let path = root.path(REQUEST);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("understand {}", path.display()))
                .map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Takes the request away, if there is one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn withdraw(root: &Root) -> Result<()> {
        let path = root.path(REQUEST);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_done_once_and_only_one_at_a_time() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        assert_eq!(Install::take(&root).expect("reads"), None);
        let asked = Install::Slot { version: "535.261.03".into() };
        asked.ask(&root).expect("asks");
        assert!(asked.ask(&root).expect_err("is asked already").to_string().contains("install.json"));
        assert_eq!(Install::take(&root).expect("reads"), Some(asked.clone()));
        assert_eq!(Install::take(&root).expect("reads"), None);
        asked.ask(&root).expect("asks again");
        Install::withdraw(&root).expect("withdraws");
        Install::withdraw(&root).expect("there is none");
        assert_eq!(Install::take(&root).expect("reads"), None);
    }
}
