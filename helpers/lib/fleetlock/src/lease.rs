// SPDX-License-Identifier: MIT
//! The record of the lease, on disk.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use step::{Root, now_usec};

/// Where it is: there as long as the server may hold a lease for this machine.
pub const LEASE: &str = "/var/lib/nvidia-reload/fleet/lease.json";

/// A lock on this is held while it is changed and while the server is asked about it.
const LOCK: &str = "/var/lib/nvidia-reload/fleet/lease.lock";

/// How long the lock is waited for: who asks the server has it meanwhile.
const LOCK_TIME: Duration = Duration::from_secs(30);

/// The format that this program writes.
const SCHEMA: &str = "nvidia-reload.lease/1";

/// How far the lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The server is asked for it, and nothing is stopped so far.
    Asking,
    /// A run has it, or had it and failed.
    Held,
    /// It is to be released at the server.
    Releasing,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The name and version of this format.
    pub schema: String,
    /// The server's base URL.
    pub server: String,
    /// The group that this machine is in there.
    pub group: String,
    /// What this machine is called there.
    pub id: String,
    /// How far it is.
    pub state: State,
    /// Since when, in microseconds since 1970.
    pub since_usec: u64,
    /// The run that has it, or had it last.
    pub run: Option<String>,
    /// Why it could not be released at the server so far.
    pub trouble: Option<String>,
}

impl Lease {
    pub(crate) fn new(server: String, group: String, id: String) -> Self {
        Self {
            schema: SCHEMA.into(),
            server,
            group,
            id,
            state: State::Asking,
            since_usec: now_usec(),
            run: None,
            trouble: None,
        }
    }

    /// Whether both are of one server, and one machine there.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.server, &self.group, &self.id) == (&other.server, &other.group, &other.id)
    }

    /// The same in another state.
    pub(crate) fn entered(self, state: State) -> Self {
        let since_usec = if self.state == state { self.since_usec } else { now_usec() };
        Self { state, since_usec, trouble: None, ..self }
    }

    /// What it is, for a sentence.
    pub fn name(&self) -> String {
        format!("the lease of {} (group {}, id {})", self.server, self.group, self.id)
    }
}

/// The lease, if the server may hold one for this machine.
///
/// # Errors
/// The record cannot be read, or another version wrote it.
pub fn read(root: &Root) -> Result<Option<Lease>> {
    let path = root.path(LEASE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let lease: Lease =
        serde_json::from_slice(&text).with_context(|| format!("{} is no lease", path.display()))?;
    if lease.schema != SCHEMA {
        bail!("{} has schema {:?}, not {SCHEMA:?}", path.display(), lease.schema);
    }
    Ok(Some(lease))
}

/// The record, for one who may change it: others wait.
#[derive(Debug)]
pub struct Locked<'a> {
    root: &'a Root,
    _lock: File,
}

/// Locks the record.
///
/// # Errors
/// Another process has it for too long.
pub fn lock(root: &Root) -> Result<Locked<'_>> {
    let path = root.path(LOCK);
    let folder = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
    // The package may have been installed by a tool that makes no tmpfiles.
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(Locked { root, _lock: files::lock(&path, LOCK_TIME, |_| ())? })
}

impl Locked<'_> {
    /// The lease.
    ///
    /// # Errors
    /// See [`read`].
    pub fn read(&self) -> Result<Option<Lease>> {
        read(self.root)
    }

    /// Writes it. It has no secret: everyone may know.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, lease: &Lease) -> Result<()> {
        let path = self.root.path(LEASE);
        let text = serde_json::to_vec_pretty(lease).context("encode the lease")?;
        files::replace_synced(&path, 0o644, &text).with_context(|| format!("write {}", path.display()))
    }

    /// Removes it: the server has no lease of this machine.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(&self) -> Result<()> {
        let path = self.root.path(LEASE);
        files::remove(&path).map(drop).with_context(|| format!("remove {}", path.display()))
    }
}
