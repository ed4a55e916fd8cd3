// SPDX-License-Identifier: MIT
//! What the lines of a file add up to, read once each however often somebody asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::IgnoredAny;

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
    /// How many damaged lines are not named.
    more: usize,
}

/// More acts than any run has.
const HIGHEST: u64 = 1 << 40;

/// So many damaged lines are named: each becomes a line of the ledger again when the run is closed.
const MOST_NAMED: usize = 20;

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
            more: 0,
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
            // Without an error for each: there may be any number.
            if self.damaged.len() == MOST_NAMED && serde_json::from_slice::<IgnoredAny>(line).is_err() {
                self.more += 1;
                continue;
            }
            if let Err(error) = self.line(line) {
                if self.run.is_none() && is_newer(line) {
                    return Err(error);
                }
                match self.damaged.len() < MOST_NAMED {
                    true => self.damaged.push(format!("{}:{}: {error:#}", self.path.display(), self.lines)),
                    false => self.more += 1,
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        if is_newer(line) {
            bail!("a later version of nvidia-reload wrote this; this one knows the format {VERSION}");
        }
        let record: Record = serde_json::from_slice(line).context("damaged")?;
        let id = record.event.id().unwrap_or_default();
        // The next one is the highest and one more.
        if id > HIGHEST {
            bail!("damaged: no run has an act {id}");
        }
        self.highest = self.highest.max(id);
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
        let mut damaged = self.damaged.clone();
        if self.more > 0 {
            damaged.push(format!("{}: {} more lines are damaged", self.path.display(), self.more));
        }
        Ok(Run { damaged, ..self.begun()?.clone() })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole run with every kind of line.
    const WHOLE: &[u8] = include_bytes!("store/first-version.jsonl");

    fn tally(parts: &[&[u8]]) -> Tally {
        let mut tally = Tally::new(Path::new("ledger.jsonl"));
        parts.iter().for_each(|part| tally.add(part).expect("is of this version"));
        tally
    }

    /// What it says, in a form that can be compared.
    fn said(tally: &Tally) -> (Option<Run>, u64, u64, usize) {
        (tally.run().ok(), tally.bytes(), tally.next_id(), tally.acts())
    }

    #[test]
    fn damaged_lines_without_number_are_counted() {
        let damaged = b"\n".repeat(1 << 20);
        let run = tally(&[WHOLE, &damaged]).run().expect("is read");
        assert_eq!((run.acts.len(), run.damaged.len()), (10, MOST_NAMED + 1));
        let last = run.damaged.last().expect("is there");
        assert_eq!(last, &format!("ledger.jsonl: {} more lines are damaged", (1 << 20) - MOST_NAMED));
    }

    #[test]
    fn wherever_it_is_cut_off_the_whole_lines_count_and_what_comes_later_is_read() {
        let all = said(&tally(&[WHOLE]));
        let mut whole = 0;
        let mut expected = said(&tally(&[]));
        for cut in 0..=WHOLE.len() {
            if cut > 0 && WHOLE[cut - 1] == b'\n' {
                whole = cut;
                expected = said(&tally(&[&WHOLE[..whole]]));
                assert!(expected.0.as_ref().is_some_and(|run| run.damaged.is_empty()));
            }
            let read = tally(&[&WHOLE[..cut]]);
            assert_eq!(said(&read), expected, "cut off after {cut} bytes");
            // A reader that has read that much continues from there.
            if cut.is_multiple_of(16) || cut == whole {
                assert_eq!(said(&tally(&[&WHOLE[..cut], &WHOLE[whole..]])), all, "read on after {cut} bytes");
            }
        }
    }
}
