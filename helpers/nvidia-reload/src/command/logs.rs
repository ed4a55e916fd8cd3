// SPDX-License-Identifier: MIT
//! `logs`: the journal of a run.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use ledger::Recorded;
use serde::Serialize;
use step::{Entry, Excerpt, Of, Root, excerpt};

use super::{guard, print};
use crate::cli::Logs;
use crate::fault::{Fault, Result};
use crate::terminal::{Stream, Terminal};
use crate::{runs, view};

/// The name and version of the JSON.
const SCHEMA: &str = "nvidia-reload.logs/1";

/// How long journalctl may take, perhaps on a slow disk.
const TIME: Duration = Duration::from_secs(60);

/// More lines are not shown.
const MOST: usize = 20_000;

/// What is written before the run is opened, and after it is closed, belongs to it.
const AROUND_USEC: u64 = 2_000_000;

#[derive(Serialize)]
struct Journal<'a> {
    schema: &'static str,
    run: &'a str,
    entries: Vec<Entry>,
}

/// Shows it.
pub fn logs(arguments: &Logs) -> Result<u8> {
    guard::root("logs")?;
    let root = Root::system();
    let history = runs::on_record(&root)?;
    let recorded = runs::choose(&history, arguments.run.as_deref())?;
    let entries = of_run(&root, recorded, Of::OurUnits).map_err(|error| {
        let remedy = "`journalctl -u 'nvidia-reload-*'` shows the lines of all runs";
        Fault::new(step::Exit::Failed, "the journal of the run cannot be read", remedy).because(&*error)
    })?;
    if arguments.output.json {
        print(&Journal { schema: SCHEMA, run: &recorded.run.id, entries });
    } else {
        let mut terminal = Terminal::new(Stream::Out);
        let text = view::logs::logs(&entries, &[], terminal.style(), &TimeZone::system());
        terminal.write(&text);
    }
    Ok(0)
}

/// What the journal has of a run.
///
/// # Errors
/// It cannot be read.
pub fn of_run(root: &Root, recorded: &Recorded, of: Of) -> anyhow::Result<Vec<Entry>> {
    let account = runs::account(root, recorded);
    let asked = Excerpt {
        of,
        boots: &account.boots,
        since_usec: account.summary.began_usec.saturating_sub(AROUND_USEC),
        until_usec: account.summary.ended_usec.map(|ended| ended + AROUND_USEC),
        most: MOST,
    };
    excerpt(&asked, Instant::now() + TIME)
}
