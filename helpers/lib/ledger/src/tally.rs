//! What the lines of a file add up to, read once each however often somebody asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::record::{Event, Record, Run, VERSION};

/// The whole lines of a ledger that were read so far. A line that cannot be understood, or that contradicts
/// those before it, takes no other with it: it is named, and what the others say holds.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    path: PathBuf,
    run: Option<Run>,
    place: BTreeMap<u64, usize>,
    lines: usize,
    bytes: u64,
    highest: u64,
    damaged: Vec<String>,
}

impl Tally {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            run: None,
            place: BTreeMap::new(),
            lines: 0,
            bytes: 0,
            highest: 0,
            damaged: Vec::new(),
        }
    }

    /// How many bytes of the file are whole lines; what follows was torn by a power cut.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// An id that no line speaks of, not even one whose announcement is damaged.
    pub(crate) fn next_id(&self) -> u64 {
        self.highest + 1
    }

    /// Adds what follows in the file.
    ///
    /// # Errors
    /// A later version wrote it.
    pub(crate) fn add(&mut self, text: &[u8]) -> Result<()> {
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
            self.lines += 1;
            self.bytes += line.len() as u64;
            if let Err(error) = self.line(line) {
                if self.run.is_none() && is_newer(line) {
                    return Err(error);
                }
                self.damaged.push(format!("{}:{}: {error:#}", self.path.display(), self.lines));
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        if is_newer(line) {
            bail!("a later version of nvidia-reload wrote this; this one knows the format {VERSION}");
        }
        let record: Record = serde_json::from_slice(line).context("damaged")?;
        self.highest = self.highest.max(record.event.id().unwrap_or_default());
        match &mut self.run {
            Some(run) => run.add(&record, &mut self.place).context("contradicts the lines before it"),
            None => {
                let mut run = Run::begun(&record);
                if !matches!(record.event, Event::Opened { .. }) {
                    self.damaged.push(format!("{}: does not open a run", self.path.display()));
                    run.add(&record, &mut self.place).context("contradicts the lines before it")?;
                }
                self.run = Some(run);
                Ok(())
            }
        }
    }

    /// What they add up to.
    ///
    /// # Errors
    /// No line could be understood.
    pub(crate) fn run(&self) -> Result<Run> {
        Ok(Run { damaged: self.damaged.clone(), ..self.begun()?.clone() })
    }

    /// The run's id.
    ///
    /// # Errors
    /// No line could be understood.
    pub(crate) fn id(&self) -> Result<&str> {
        Ok(&self.begun()?.id)
    }

    fn begun(&self) -> Result<&Run> {
        self.run.as_ref().with_context(|| {
            format!(
                "{} has no line that can be understood ({}); nothing was changed: \
                 move the file away to give the run up",
                self.path.display(),
                self.damaged.first().map_or("it is empty", String::as_str)
            )
        })
    }

    /// Whether the run is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.outcome.is_some())
    }

    /// How many acts were announced.
    pub(crate) fn acts(&self) -> usize {
        self.place.len()
    }
}

fn is_newer(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Head {
        v: u32,
    }
    serde_json::from_slice(line).is_ok_and(|head: Head| head.v > VERSION)
}

impl Event {
    /// The act that it is about.
    fn id(&self) -> Option<u64> {
        match self {
            Event::Intent { id, .. }
            | Event::Done { id }
            | Event::Failed { id, .. }
            | Event::Undone { id }
            | Event::Lost { id, .. }
            | Event::UndoFailed { id, .. } => Some(*id),
            _ => None,
        }
    }
}
