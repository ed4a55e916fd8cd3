// SPDX-License-Identifier: MIT
//! Who asks logind that the machine not be shut down; the sibling that speaks D-Bus asks it.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// The sibling.
const ASKED: &str = "/usr/libexec/nvidia-reload/stop-units";

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
pub fn inhibitors() -> Result<Vec<Inhibitor>> {
    ask(Path::new(ASKED))
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
