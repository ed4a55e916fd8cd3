// SPDX-License-Identifier: MIT
//! Who asks logind that the machine not be shut down; the sibling that speaks D-Bus asks it.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::Root;

/// The sibling.
const ASKED: &str = "/usr/libexec/nvidia-reload/stop-units";

/// logind keeps a file here for each who inhibits something: inhibitor_save() in systemd's src/login/logind-inhibit.c.
const KEPT: &str = "/run/systemd/inhibit";

/// How long it may take: the bus, then logind.
const TIME: Duration = Duration::from_secs(60);

/// More are not worth reading.
const MOST: usize = 1 << 20;

/// One who blocks a shutdown, as `systemd-inhibit --list` has it. Its words are its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inhibitor {
    /// What it calls itself.
    pub who: String,
    /// Why.
    pub why: String,
    /// The user it runs as.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
}

impl Inhibitor {
    /// What to do about it.
    pub const REMEDY: &'static str = "wait until it has ended; `systemd-inhibit --list` shows it";
}

impl fmt::Display for Inhibitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, why, uid, pid } = self;
        write!(f, "{who} (process {pid} of user {uid}) inhibits a shutdown: {why}")
    }
}

/// Those who block a shutdown.
///
/// # Errors
/// logind is there and does not answer.
pub fn inhibitors(root: &Root) -> Result<Vec<Inhibitor>> {
    match nobody_inhibits(root) {
        true => Ok(Vec::new()),
        false => ask(Path::new(ASKED)),
    }
}

/// Whether there is no inhibitor, so that logind need not be asked, which takes as long as a step. Where the
/// directory cannot be read, logind is asked.
fn nobody_inhibits(root: &Root) -> bool {
    match root.path(KEPT).read_dir() {
        Ok(mut files) => files.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn ask(helper: &Path) -> Result<Vec<Inhibitor>> {
    let name = helper.display();
    let (status, text) =
        bounded::child(Command::new(helper).arg("list-inhibitors"), Instant::now() + TIME, MOST)
            .with_context(|| format!("run {name} list-inhibitors"))?;
    if !status.success() {
        bail!("{name} list-inhibitors ended with {status}");
    }
    serde_json::from_slice(&text).with_context(|| format!("understand what {name} list-inhibitors says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logind_is_asked_where_it_keeps_something_or_that_is_not_known() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert!(nobody_inhibits(&root), "no logind");
        let kept = root.path(KEPT);
        std::fs::create_dir_all(&kept).expect("creates");
        assert!(nobody_inhibits(&root), "nobody");
        std::fs::write(kept.join("1"), "").expect("writes");
        assert!(!nobody_inhibits(&root), "somebody");
        std::fs::remove_dir_all(&kept).expect("removes");
        std::fs::write(&kept, "").expect("writes");
        assert!(!nobody_inhibits(&root), "it cannot be read");
    }
}
