// SPDX-License-Identifier: MIT
//! The account of a run that is over, or goes on.

use jiff::tz::TimeZone;

use super::history::{driver, result, short};
use super::table::{Column, table};
use super::text::{clean, seconds, wrap};
use super::time::whole;
use super::{Paint, Style, logs, report};
use crate::report::Report;
use crate::runs::{Account, between};

/// As many lines of the journal are shown; `logs` shows them all.
const LINES: usize = 12;

const STEPS: [Column; 4] = [
    Column { title: "STEP", right: false, least: 0, rank: 0 },
    Column { title: "BEGAN", right: true, least: 0, rank: 0 },
    Column { title: "TOOK", right: true, least: 0, rank: 0 },
    Column { title: "RESULT", right: false, least: 0, rank: 0 },
];

const WORKLOADS: [Column; 4] = [
    Column { title: "STOPPED", right: true, least: 0, rank: 0 },
    Column { title: "DOWN FOR", right: true, least: 0, rank: 0 },
    Column { title: "NOW", right: false, least: 0, rank: 0 },
    Column { title: "WORKLOAD", right: false, least: 0, rank: 0 },
];

/// The whole page: what is known of the run, and how it ended, as the command said then.
pub fn run(account: &Account, ended: &Report, style: Style, zone: &TimeZone) -> String {
    let run = &account.summary;
    let mut page = String::new();
    let mut row = |label: &str, text: &str| {
        page.push_str(&wrap(&format!("{label:<13} "), &clean(text), style.width));
    };
    row("Run", &run.run);
    row("What", run.what.word());
    row("Began", &whole(run.began_usec, zone));
    row("Ended", &run.ended_usec.map_or_else(|| "it is open".to_owned(), |at| whole(at, zone)));
    row(
        "Started by",
        &run.started_by.as_ref().map_or_else(|| "systemctl, or not recorded".to_owned(), |by| by.words()),
    );
    row("Driver", &driver(run, style));
    row("Result", result(run.result).1);
    if let Some(time) = run.downtime_seconds {
        row("Downtime", &format!("{} for the workload that waited longest", seconds(time)));
    }
    page.push('\n');
    if run.result.is_some() {
        page.push_str(&report::report(ended, style));
    } else {
        page.push_str(&format!(
            "{}\n",
            style.paint(Paint::Attention, "The run is open: `nvidia-reload status` shows how far it is.")
        ));
    }
    page.push_str(&steps(account, style));
    page.push_str(&workloads(account, style));
    page.push_str(&journal(account, style, zone));
    page
}

fn after(account: &Account, usec: u64) -> String {
    format!("+{}", seconds(between(account.summary.began_usec, usec)))
}

fn steps(account: &Account, style: Style) -> String {
    if account.steps.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = account
        .steps
        .iter()
        .map(|step| {
            vec![
                step.step.to_string(),
                after(account, step.began_usec),
                seconds(between(step.began_usec, step.ended_usec)),
                step.result.to_owned(),
            ]
        })
        .collect();
    format!("\n{}", table(style, &STEPS, &rows))
}

fn workloads(account: &Account, style: Style) -> String {
    if account.workloads.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = account
        .workloads
        .iter()
        .map(|workload| {
            vec![
                after(account, workload.down_usec),
                workload.seconds.map_or_else(|| "-".to_owned(), seconds),
                workload.state.replace('-', " "),
                workload.name.clone(),
            ]
        })
        .collect();
    format!("\n{}", table(style, &WORKLOADS, &rows))
}

fn journal(account: &Account, style: Style, zone: &TimeZone) -> String {
    let mut page = String::from("\n");
    let bad: Vec<_> = account.journal.iter().filter(|entry| entry.priority <= 4).collect();
    if !bad.is_empty() {
        page.push_str(&format!("{}\n", style.paint(Paint::Strong, "Warnings and errors")));
        for entry in bad.iter().take(LINES) {
            page.push_str(&logs::line(entry, style, zone));
        }
    }
    if let Some(more) = bad.len().checked_sub(LINES).filter(|more| *more > 0) {
        page.push_str(&format!("and {more} more\n"));
    }
    for what in &account.unseen {
        page.push_str(&wrap("", &clean(what), style.width));
    }
    if account.at_failure.is_some() {
        let text =
            "The state at the failure is kept: `nvidia-reload report --bundle FILE` writes it to an archive.";
        page.push_str(&wrap("", text, style.width));
    }
    let more = format!("`nvidia-reload logs {}` shows the journal of the run.", short(&account.summary.run));
    page.push_str(&wrap("", &more, style.width));
    page
}

#[cfg(test)]
mod tests {
    use super::super::runs_gallery::{account, ended, good_account, good_ended, zone};
    use super::super::text::width;
    use super::*;

    /// All but the headline of how it ended, which view/report.rs has.
    fn fits(page: &str) -> bool {
        let (headed, rest) = page.split_once("\n\n").expect("has parts");
        let rest = rest.lines().skip(1);
        headed.lines().chain(rest).all(|line| width(line) <= 80)
    }

    #[test]
    fn a_failed_run_at_eighty_columns() {
        let style = Style { colour: false, unicode: true, width: Some(80), verbose: false };
        let page = run(&account(), &ended(), style, &zone());
        assert!(fits(&page), "{page}");
        insta::assert_snapshot!(page);
    }

    #[test]
    fn a_good_run_at_eighty_columns() {
        let style = Style { colour: false, unicode: true, width: Some(80), verbose: false };
        let page = run(&good_account(), &good_ended(), style, &zone());
        assert!(fits(&page), "{page}");
        insta::assert_snapshot!(page);
    }
}
