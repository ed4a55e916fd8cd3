// SPDX-License-Identifier: MIT
//! A driver whose files a rollback put on disk.

use serde::Serialize;
use slots::Note;
use step::Root;

/// A driver whose files were put on disk without its package manager or installer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutBack {
    /// The driver whose files are on disk.
    pub version: String,
    /// The driver that they replaced, if it is known.
    pub instead_of: Option<String>,
    /// The run that did it.
    pub run: String,
    /// What brings the disk and the package database together, in words.
    pub remedy: String,
}

impl PutBack {
    /// What is noted of it, as long as it holds.
    ///
    /// # Errors
    /// The note is there and cannot be read.
    pub fn read(root: &Root) -> anyhow::Result<Option<Self>> {
        Ok(Note::read(root)?.map(|Note { version, instead_of, run, remedy, .. }| Self {
            version,
            instead_of,
            run,
            remedy,
        }))
    }

    /// What is so, in a sentence without its end.
    pub fn sentence(&self) -> String {
        slots::sentence(&self.version, self.instead_of.as_deref())
    }
}
