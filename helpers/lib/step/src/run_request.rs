// SPDX-License-Identifier: MIT
//! What a run is asked to do beyond a reload of the driver on disk: one document, since a job of systemd has
//! no arguments.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ledger::Install;
use serde::{Deserialize, Serialize};

use crate::{Reason, Root, Stop};

/// The document, in a directory that is empty after a boot. Preflight takes it away as it reads it, and its
/// unit at the end of any run: it is for one run, whatever becomes of that.
const PATH: &str = "/run/nvidia-reload/run-request.json";

/// How long it stands. It is written just before the run is started: an older one is of a command that was killed in
/// between, and no later run is what it asks for.
const STANDS: Duration = Duration::from_secs(15 * 60);

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunRequest {
    /// A reset of the GPUs that are named so, of all where none is; without, a reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<Vec<String>>,
    /// The driver that is put on disk between the unload and the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<Install>,
    /// The run keeps the machine without workloads, or without driver, until a person ends it.
    pub hold: bool,
    /// The run may begin only if no work is lost by it.
    pub if_idle: bool,
}

impl RunRequest {
    /// Asks for it: the next run is to do it. Whether there was anything to ask for: a plain reload needs no
    /// document. One that does not stand any more is replaced.
    ///
    /// # Errors
    /// Another run is asked for already, or the document cannot be written.
    pub fn ask(&self, root: &Root) -> Result<bool> {
        if *self == Self::default() {
            return Ok(false);
        }
        let path = root.path(PATH);
        if age(&path)?.is_some_and(|age| age > STANDS) {
            Self::withdraw(root)?;
        }
        let text = serde_json::to_vec(self).context("encode the request")?;
        // Whole or not at all, and only if nothing is asked for already.
        let folder = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
        let mut new = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("create a file in {}", folder.display()))?;
        new.write_all(&text).with_context(|| format!("write {}", path.display()))?;
        match new.persist_noclobber(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                bail!("another run is asked for already: {}", path.display())
            }
            Err(error) => Err(error.error).with_context(|| format!("create {}", path.display())),
        }
    }

    /// Asks for a reset of all GPUs, unless a reset is what is asked for.
    ///
    /// # Errors
    /// Another run is asked for already, or the document cannot be read or written.
    pub fn ask_for_reset(root: &Root) -> Result<()> {
        match Self::read(root)? {
            Some(asked) if asked.reset.is_some() => Ok(()),
            _ => Self { reset: Some(Vec::new()), ..Self::default() }.ask(root).map(drop),
        }
    }

    /// Asks that the run hold the machine, unless that is what is asked for.
    ///
    /// # Errors
    /// Another run is asked for already, or the document cannot be read or written.
    pub fn ask_to_hold(root: &Root) -> Result<()> {
        match Self::read(root)? {
            Some(asked) if asked.hold => Ok(()),
            _ => Self { hold: true, ..Self::default() }.ask(root).map(drop),
        }
    }

    /// What is asked for: a plain reload where there is no document. It is not asked for any more then.
    ///
    /// # Errors
    /// The document cannot be read or taken away. [`Stop::Refused`]: it does not stand any more.
    pub fn take(root: &Root) -> Result<Self> {
        let (asked, age) = (Self::read(root), age(&root.path(PATH)));
        Self::withdraw(root)?;
        if let Some(age) = age?.filter(|age| *age > STANDS) {
            let what =
                format!("a command asked for another run {} minutes ago and was killed", age.as_secs() / 60);
            return Err(Stop::Refused(vec![Reason::new(
                what,
                "the request is dropped: start the run again",
            )])
            .into());
        }
        Ok(asked?.unwrap_or_default())
    }

    /// What is asked for, if there is a document; it stays asked for.
    ///
    /// # Errors
    /// The document cannot be read or understood.
    pub fn read(root: &Root) -> Result<Option<Self>> {
        let path = root.path(PATH);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("understand {}", path.display()))
                .map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Takes the document away, if there is one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn withdraw(root: &Root) -> Result<()> {
        let path = root.path(PATH);
        files::remove(&path).map(drop).with_context(|| format!("remove {}", path.display()))
    }
}

/// How long ago a file was written; none where there is none, or where the clock was set back since.
fn age(path: &Path) -> Result<Option<Duration>> {
    match fs::metadata(path).and_then(|data| data.modified()) {
        Ok(written) => Ok(written.elapsed().ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn machine() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        (directory, root)
    }

    #[test]
    fn a_request_is_for_one_run_and_only_one_at_a_time() {
        let (_directory, root) = machine();
        assert_eq!(RunRequest::take(&root).expect("reads"), RunRequest::default());
        assert!(!RunRequest::default().ask(&root).expect("needs no document"));
        let install = Some(Install::Slot { version: "535.261.03".into() });
        let asked = RunRequest { install, if_idle: true, ..RunRequest::default() };
        assert!(asked.ask(&root).expect("asks"));
        assert!(asked.ask(&root).expect_err("is asked already").to_string().contains("run-request.json"));
        assert_eq!(RunRequest::take(&root).expect("reads"), asked);
        assert_eq!(RunRequest::read(&root).expect("reads"), None);
        asked.ask(&root).expect("asks again");
        RunRequest::withdraw(&root).expect("withdraws");
        RunRequest::withdraw(&root).expect("there is none");
        assert_eq!(RunRequest::take(&root).expect("reads"), RunRequest::default());
    }

    #[test]
    fn what_a_killed_command_has_left_is_of_no_later_run() {
        let (_directory, root) = machine();
        let rollback = Some(Install::Slot { version: "535.261.03".into() });
        let old = RunRequest { install: rollback, ..RunRequest::default() };
        let leave = || {
            old.ask(&root).expect("asks");
            let file = fs::File::options().write(true).open(root.path(PATH)).expect("is there");
            file.set_modified(SystemTime::now() - Duration::from_secs(16 * 60)).expect("sets");
        };
        leave();
        let error = RunRequest::take(&root).expect_err("is refused");
        assert!(matches!(error.downcast_ref(), Some(Stop::Refused(_))), "{error:#}");
        assert!(error.to_string().contains("16 minutes ago"), "{error:#}");
        assert_eq!(RunRequest::take(&root).expect("reads"), RunRequest::default(), "once only");
        leave();
        let hold = RunRequest { hold: true, ..RunRequest::default() };
        assert!(hold.ask(&root).expect("is not in the way"));
        assert_eq!(RunRequest::take(&root).expect("reads"), hold);
    }

    #[test]
    fn a_reset_is_asked_for_once_and_not_of_another_run() {
        let (_directory, root) = machine();
        RunRequest::ask_for_reset(&root).expect("asks");
        RunRequest::ask_for_reset(&root).expect("is asked for");
        assert_eq!(RunRequest::take(&root).expect("reads").reset, Some(Vec::new()));
        let of_one = RunRequest { reset: Some(vec!["GPU-a".into()]), ..RunRequest::default() };
        of_one.ask(&root).expect("asks");
        RunRequest::ask_for_reset(&root).expect("is asked for");
        assert_eq!(RunRequest::take(&root).expect("reads"), of_one);
        RunRequest { if_idle: true, ..RunRequest::default() }.ask(&root).expect("asks");
        RunRequest::ask_for_reset(&root).expect_err("would be done by a reload");
    }

    #[test]
    fn a_hold_is_asked_for_once_and_not_of_another_run() {
        let (_directory, root) = machine();
        RunRequest::ask_to_hold(&root).expect("asks");
        RunRequest::ask_to_hold(&root).expect("is asked for");
        RunRequest::ask_for_reset(&root).expect_err("would be held");
        assert!(RunRequest::take(&root).expect("reads").hold);
        RunRequest::ask_for_reset(&root).expect("asks");
        RunRequest::ask_to_hold(&root).expect_err("would not be held");
    }

    #[test]
    fn what_is_not_understood_is_taken_away_and_refused() {
        let (_directory, root) = machine();
        fs::write(root.path(PATH), r#"{"reset": [], "more": 1}"#).expect("writes");
        let error = RunRequest::take(&root).expect_err("is not understood");
        assert!(error.to_string().contains("run-request.json"), "{error:#}");
        assert_eq!(RunRequest::take(&root).expect("reads"), RunRequest::default());
    }
}
