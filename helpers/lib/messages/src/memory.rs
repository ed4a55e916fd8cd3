// SPDX-License-Identifier: MIT
//! What is saved from one reading to the next, for as long as this boot lasts.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use files::replace;
use serde::{Deserialize, Serialize};
use step::Root;
use xid::{Address, Message, condensed};

use crate::{Log, kmsg};

/// Where it is saved.
const FILE: &str = "/run/nvidia-reload/messages.json";

/// The schema of the file.
const SCHEMA: &str = "nvidia-reload.memory/1";

/// What is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) schema: String,
    pub(crate) boot: String,
    /// What is later than this was not read.
    pub(crate) usec: u64,
    /// The last entry of the journal that was read, if any was.
    pub(crate) cursor: Option<String>,
    pub(crate) resets: BTreeMap<String, u64>,
    #[serde(rename = "kept")]
    pub(crate) saved: Vec<Saved>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    usec: u64,
    text: String,
}

impl Memory {
    pub(crate) fn of(boot: String, usec: u64, cursor: Option<String>, log: &Log) -> Self {
        let save = |message: Message| Saved { usec: message.usec, text: message.text };
        Self {
            schema: SCHEMA.to_owned(),
            boot,
            usec,
            cursor,
            resets: log.resets.iter().map(|(gpu, usec)| (gpu.to_string(), *usec)).collect(),
            saved: condensed(&log.messages).into_iter().map(save).collect(),
        }
    }

    /// What was saved in this boot; nothing where nothing was, or by another version.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(crate) fn load(root: &Root, boot: &str) -> Result<Self> {
        let path = root.path(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            // Who may not read this may not read the kernel's log either, and gets that error.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        // What cannot be understood can be read again from the kernel and the journal.
        let memory: Option<Memory> = serde_json::from_slice(&text).ok();
        Ok(memory.filter(|memory| memory.schema == SCHEMA && memory.boot == boot).unwrap_or_default())
    }

    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save(&self, root: &Root) -> Result<()> {
        let path = root.path(FILE);
        let text = serde_json::to_vec(self).context("encode what is saved")?;
        // Root's alone to read, as the kernel's log may be; /run needs no syncing.
        replace(&path, 0o600, &text).with_context(|| format!("write {}", path.display()))
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.saved.iter().filter_map(|saved| kmsg::message(saved.usec, &saved.text)).collect()
    }

    pub(crate) fn resets(&self) -> BTreeMap<Address, u64> {
        self.resets.iter().filter_map(|(gpu, usec)| Some((gpu.parse().ok()?, *usec))).collect()
    }
}
