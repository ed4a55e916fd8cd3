// SPDX-License-Identifier: MIT
//! The runs on record.

use jiff::tz::TimeZone;

use super::text::{clean, pad, seconds, width, wrap};
use super::time::minute;
use super::{Paint, Style};
use crate::report::Outcome;
use crate::runs::{List, Summary};

/// As much of a run's id as names it.
pub const ID: usize = 8;

/// Where the second line of a run begins: below the second column.
const INDENT: &str = "          ";

const TITLES: [(&str, usize); 5] = [("RUN", ID), ("BEGAN", 16), ("WHAT", 8), ("DRIVER", 23), ("RESULT", 0)];

/// The whole page.
pub fn history(list: &List, style: Style, zone: &TimeZone) -> String {
    let mut page = String::new();
    if list.runs.is_empty() {
        page.push_str("No run is on record.\n");
    } else {
        let titles: Vec<String> = TITLES.iter().map(|(title, _)| (*title).to_owned()).collect();
        page.push_str(&format!("{}\n", style.paint(Paint::Strong, &line(&titles))));
    }
    for run in &list.runs {
        let mut cells = vec![
            short(&run.run),
            minute(run.began_usec, zone),
            run.what.word().to_owned(),
            driver(run, style),
        ];
        let (paint, result) = result(run.result);
        cells.push(result.to_owned());
        // The result is the last cell: a paint does not change the widths before it.
        let text = line(&cells);
        let begin = text.strip_suffix(result).unwrap_or(&text).to_owned();
        page.push_str(&format!("{begin}{}\n", style.paint(paint, result)));
        page.push_str(&wrap(INDENT, &clean(&more(run)), style.width));
    }
    for unreadable in &list.unreadable {
        page.push_str(&format!("{}\n", style.paint(Paint::Bad, "This record cannot be read:")));
        page.push_str(&wrap("  ", &clean(unreadable), style.width));
    }
    if let Some(run) = list.runs.first() {
        page.push_str(&wrap(
            "",
            &format!("`nvidia-reload report {}` has the details.", short(&run.run)),
            style.width,
        ));
    }
    page
}

/// As much of an id as is shown.
pub fn short(id: &str) -> String {
    clean(&id.chars().take(ID).collect::<String>())
}

/// How a run ended, in words.
pub fn result(result: Option<Outcome>) -> (Paint, &'static str) {
    match result {
        None => (Paint::Attention, "open"),
        Some(Outcome::Done) => (Paint::Good, "done"),
        Some(Outcome::Cancelled) => (Paint::Attention, "cancelled"),
        Some(Outcome::RolledBack) => (Paint::Bad, "rolled back"),
        Some(_) => (Paint::Bad, "degraded"),
    }
}

/// The driver before and after.
pub fn driver(run: &Summary, style: Style) -> String {
    let before = run.driver_before.as_deref().unwrap_or("none");
    let after = match (&run.driver_after, run.result) {
        (Some(after), _) => after,
        (None, None) => return before.to_owned(),
        (None, Some(_)) => "unknown",
    };
    match before == after {
        true => before.to_owned(),
        false => format!("{before} {} {after}", style.glyph("→", "->")),
    }
}

fn line(cells: &[String]) -> String {
    let mut line = String::new();
    for (cell, (_, least)) in cells.iter().zip(TITLES) {
        if width(&line) > 0 {
            line.push_str("  ");
        }
        line.push_str(&pad(&clean(cell), least));
    }
    line.trim_end().to_owned()
}

/// What the columns have no room for.
fn more(run: &Summary) -> String {
    let mut parts = Vec::new();
    if let Some(step) = run.failed_step {
        parts.push(format!("failed at {step}"));
    }
    if let Some(time) = run.seconds {
        parts.push(format!("took {}", seconds(time)));
    }
    match run.downtime_seconds {
        Some(time) => parts.push(format!("workloads down for {}", seconds(time))),
        None if run.result.is_some() => {}
        None => parts.push("not ended".to_owned()),
    }
    parts.push(match &run.started_by {
        Some(starter) => format!("started by {}", starter.words()),
        None => "started by systemctl, or not recorded".to_owned(),
    });
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::runs_gallery::{history as list, zone};
    use super::*;

    #[test]
    fn eighty_columns_are_enough() {
        let style = Style { colour: false, unicode: true, width: Some(80), verbose: false };
        let page = history(&list(), style, &zone());
        assert!(page.lines().all(|line| width(line) <= 80), "{page}");
        insta::assert_snapshot!(page);
    }

    #[test]
    fn no_run_is_no_table() {
        let list = List { schema: "", runs: Vec::new(), unreadable: vec!["x\x1b[2J: damaged".into()] };
        let page = history(&list, Style { colour: true, ..Style::PLAIN }, &zone());
        assert!(page.starts_with("No run is on record.\n") && page.contains(r"x\x1b[2J: damaged"), "{page}");
    }
}
