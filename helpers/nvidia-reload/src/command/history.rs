// SPDX-License-Identifier: MIT
//! `history`: the runs on record.

use jiff::tz::TimeZone;
use step::Root;

use super::{guard, print};
use crate::cli::Output;
use crate::fault::Result;
use crate::terminal::{Stream, Terminal};
use crate::{runs, view};

/// Lists them.
pub fn history(output: Output) -> Result<u8> {
    guard::root("history")?;
    let root = Root::system();
    let list = runs::list(&root, &runs::on_record(&root)?);
    if output.json {
        print(&list);
    } else {
        let mut terminal = Terminal::new(Stream::Out);
        let text = view::history::history(&list, terminal.style(), &TimeZone::system());
        terminal.write(&text);
    }
    // A record that cannot be read is named, and is no reason to fail: the others are listed.
    Ok(0)
}
