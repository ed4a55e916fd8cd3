// SPDX-License-Identifier: MIT
//! What came of asking the server.

use std::fs;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use step::{Root, monotonic_usec};

/// What came of asking for the lease last. In a directory that is empty after a boot.
const PATH: &str = "/run/nvidia-reload/lease-answer.json";

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The server has done it.
    Granted,
    /// The server has said no, in these words.
    Refused(String),
    /// The server was not reached, for this reason: it does not know of the question.
    Unreached(String),
    /// It is not known what the server has done.
    Unclear(String),
}

#[derive(Serialize, Deserialize)]
struct Written {
    /// In microseconds of CLOCK_MONOTONIC.
    written_usec: u64,
    answer: Answer,
}

impl Answer {
    /// Leaves it for who started the unit that has asked.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn leave(self, root: &Root) -> Result<()> {
        let path = root.path(PATH);
        let written = Written { written_usec: monotonic_usec(), answer: self };
        let text = serde_json::to_vec(&written).context("encode the answer")?;
        files::replace(&path, 0o600, &text).with_context(|| format!("write {}", path.display()))
    }

    /// What came of asking after `since_usec` of CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// Nothing is left from then.
    pub(crate) fn since(root: &Root, since_usec: u64) -> Result<Self> {
        let path = root.path(PATH);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let written: Written =
            serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))?;
        if written.written_usec < since_usec {
            bail!("{} is of an earlier question", path.display());
        }
        Ok(written.answer)
    }
}
