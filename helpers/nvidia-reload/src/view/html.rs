// SPDX-License-Identifier: MIT
//! The account of a run as one page for a browser: no scripts, nothing that is loaded from elsewhere, readable
//! without colour. Whatever comes from the machine is escaped: names come from users.

use jiff::tz::TimeZone;
use step::Entry;

use super::history::{driver, result, short};
use super::logs::{grade, source};
use super::text::{clean, seconds};
use super::time::{of_day, whole};
use super::{Paint, Style};
use crate::bundle::Public;
use crate::report::Outcome;
use crate::runs::{Account, between};

/// As many lines of the journal, and of the kernel, are shown, the last ones.
const LINES: usize = 400;

/// As many workloads and processes are shown.
const ROWS: usize = 1000;

/// About so many marks are on the axis of time.
const MARKS: f64 = 5.0;

const STYLE: &str = include_str!("html.css");

/// The whole page.
pub fn html(public: &Public, zone: &TimeZone) -> String {
    let account = public.account();
    let run = &account.summary;
    let title = format!("NVIDIA driver {} {}", run.what.word(), short(&run.run));
    let (paint, word) = result(run.result);
    let parts = [
        facts(account, zone),
        failures(account),
        missing(account),
        timeline(account),
        terminated(account, zone),
        lines("journal", "Journal of the run", &account.journal, zone),
        lines("kernel", "Messages of the kernel", &account.kernel_log, zone),
        unseen(account),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<h1>{what}</h1>\n<p class=\"result {class}\">{word}</p>\n</header>\n{parts}\
         <footer><p>Made by nvidia-reload {version}. Of command lines, only the names of programs are shown.</p></footer>\n\
         </main>\n</body>\n</html>\n",
        title = escape(&title),
        what = escape(&format!("NVIDIA driver: {}", run.what.word())),
        class = class(paint),
        parts = parts.concat(),
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// Text that is nothing but text, in a page and in an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn class(paint: Paint) -> &'static str {
    match paint {
        Paint::Good => "good",
        Paint::Bad => "bad",
        _ => "attention",
    }
}

fn facts(account: &Account, zone: &TimeZone) -> String {
    let run = &account.summary;
    let mut rows = vec![
        ("Driver", driver(run, Style::PLAIN)),
        ("Began", whole(run.began_usec, zone)),
        ("Ended", run.ended_usec.map_or_else(|| "the run is open".to_owned(), |at| whole(at, zone))),
    ];
    rows.extend(run.seconds.map(|time| ("Duration", seconds(time))));
    rows.extend(run.downtime_seconds.map(|time| ("Longest downtime", seconds(time))));
    rows.push((
        "Started by",
        run.started_by.as_ref().map_or_else(|| "systemctl, or not recorded".to_owned(), |by| by.words()),
    ));
    rows.push(("Run", run.run.clone()));
    if let Some(failure) = &account.at_failure {
        let known = [failure.distribution.as_deref(), failure.kernel.as_deref()];
        let system: Vec<&str> = known.into_iter().flatten().collect();
        rows.push(("System", system.join(", kernel ")));
    }
    let rows: String = rows
        .iter()
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(value)))
        .collect();
    format!("<dl class=\"facts\">\n{rows}</dl>\n")
}

fn section(id: &str, title: &str, body: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{body}</section>\n")
}

fn failures(account: &Account) -> String {
    if account.failures.is_empty() {
        return String::new();
    }
    let items: String = account
        .failures
        .iter()
        .map(|failure| {
            format!(
                "<li><strong>{}</strong>: {}</li>\n",
                escape(failure.step.name()),
                escape(&failure.reason)
            )
        })
        .collect();
    section("failures", "Why it failed", &format!("<ul class=\"bad\">\n{items}</ul>\n"))
}

fn missing(account: &Account) -> String {
    if account.not_restored.is_empty() {
        return String::new();
    }
    let items: String = account
        .not_restored
        .iter()
        .take(ROWS)
        .map(|missing| {
            let reason = if missing.reason.is_empty() { "" } else { ": " };
            format!(
                "<li><strong>{}</strong>{reason}{}</li>\n",
                escape(&missing.name),
                escape(&missing.reason)
            )
        })
        .collect();
    section("not-restored", "Not restored", &format!("<ul class=\"bad\">\n{items}</ul>\n"))
}

/// Time from left to right, from the beginning of the run to its end.
struct Axis {
    from: u64,
    to: u64,
}

impl Axis {
    fn of(account: &Account) -> Self {
        let steps = account.steps.iter().map(|step| step.ended_usec);
        let workloads = account
            .workloads
            .iter()
            .flat_map(|workload| [Some(workload.down_usec), workload.up_usec])
            .flatten();
        let last = steps.chain(workloads).chain(account.summary.ended_usec).max().unwrap_or_default();
        let from = account.summary.began_usec;
        Self { from, to: last.max(from + 1) }
    }

    fn percent(&self, usec: u64) -> f64 {
        let usec = usec.clamp(self.from, self.to);
        (usec - self.from) as f64 * 100.0 / (self.to - self.from) as f64
    }

    fn bar(&self, from: u64, to: u64, class: &str) -> String {
        let (left, right) = (self.percent(from), self.percent(to.max(from)));
        format!(
            "<td class=\"time\" aria-hidden=\"true\"><span class=\"bar {class}\" style=\"left:{left:.2}%;width:{:.2}%\"></span></td>",
            right - left
        )
    }

    /// Round times, about [`MARKS`] of them.
    fn marks(&self) -> String {
        let total = between(self.from, self.to);
        let rough = total / MARKS;
        let power = 10_f64.powf(rough.log10().floor());
        let nice = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough);
        let step = nice.unwrap_or(rough);
        let count = (total / step).floor() as usize;
        (0..=count.min(20))
            .map(|at| {
                let time = at as f64 * step;
                let left = time * 100.0 / total;
                // The last one would stand over the edge.
                let class = if left > 92.0 { " class=\"end\"" } else { "" };
                format!("<span{class} style=\"left:{left:.2}%\">{}</span>", mark(time))
            })
            .collect()
    }
}

fn mark(time: f64) -> String {
    match time {
        0.0 => "0".to_owned(),
        _ if time < 1.0 => format!("{time:.1} s"),
        _ if time < 600.0 => format!("{time:.0} s"),
        _ => format!("{:.0} min", time / 60.0),
    }
}

fn timeline(account: &Account) -> String {
    if account.steps.is_empty() && account.workloads.is_empty() {
        return String::new();
    }
    let axis = Axis::of(account);
    let mut body = format!(
        "<div class=\"scroll\"><table class=\"timeline\">\n<thead><tr><th scope=\"col\">What</th>\
         <th scope=\"col\" class=\"figure\">Began</th><th scope=\"col\" class=\"figure\">Took</th>\
         <th scope=\"col\">Result</th><th class=\"time axis\" aria-hidden=\"true\">{}</th></tr></thead>\n",
        axis.marks()
    );
    body.push_str("<tbody>\n<tr class=\"group\"><th colspan=\"5\" scope=\"rowgroup\">Steps</th></tr>\n");
    let row = |name: &str, from: u64, to: Option<u64>, result: &str, bar: String| {
        let began = format!("+{}", seconds(between(axis.from, from)));
        let took = to.map_or_else(|| "–".to_owned(), |to| seconds(between(from, to)));
        format!(
            "<tr><th scope=\"row\">{}</th><td class=\"figure\">{began}</td><td class=\"figure\">{took}</td>\
             <td>{}</td>{bar}</tr>\n",
            escape(name),
            escape(result)
        )
    };
    for step in &account.steps {
        let class = if step.result == "done" { "step" } else { "failed" };
        let bar = axis.bar(step.began_usec, step.ended_usec, class);
        body.push_str(&row(step.step.name(), step.began_usec, Some(step.ended_usec), step.result, bar));
    }
    // After the commit the driver stays: what failed then is tried again, and nothing is rolled back.
    if let Some(failed) = account.failed_usec.filter(|_| !account.committed) {
        let ended = account.summary.ended_usec;
        let is_back = matches!(account.summary.result, Some(Outcome::RolledBack | Outcome::Cancelled));
        let (result, class) = match (ended, is_back) {
            (None, _) => ("open", "undo"),
            (Some(_), true) => ("done", "undo"),
            (Some(_), false) => ("degraded", "failed"),
        };
        body.push_str(&row(
            "roll back",
            failed,
            ended,
            result,
            axis.bar(failed, ended.unwrap_or(axis.to), class),
        ));
    }
    if !account.workloads.is_empty() {
        let title = "Workloads, while they were down";
        body.push_str(&format!(
            "</tbody>\n<tbody>\n<tr class=\"group\"><th colspan=\"5\" scope=\"rowgroup\">{title}</th></tr>\n"
        ));
    }
    for workload in account.workloads.iter().take(ROWS) {
        let class = if workload.up_usec.is_some() { "down" } else { "failed" };
        let bar = axis.bar(workload.down_usec, workload.up_usec.unwrap_or(axis.to), class);
        let state = workload.state.replace('-', " ");
        body.push_str(&row(&workload.name, workload.down_usec, workload.up_usec, &state, bar));
    }
    body.push_str("</tbody>\n</table></div>\n");
    if let Some(more) = account.workloads.len().checked_sub(ROWS).filter(|more| *more > 0) {
        body.push_str(&format!("<p>and {more} more workloads</p>\n"));
    }
    section("timeline", "Timeline", &body)
}

fn terminated(account: &Account, zone: &TimeZone) -> String {
    if account.terminated.is_empty() {
        return String::new();
    }
    let items: String = account
        .terminated
        .iter()
        .take(ROWS)
        .map(|process| {
            let time = of_day(process.at_usec, zone);
            let what =
                format!("{time}: process {} ({}) of user {}", process.pid, process.command, process.uid);
            format!("<li>{}</li>\n", escape(&what))
        })
        .collect();
    section("terminated", "Terminated and not restarted", &format!("<ul>\n{items}</ul>\n"))
}

fn lines(id: &str, title: &str, entries: &[Entry], zone: &TimeZone) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let hidden = entries.len().saturating_sub(LINES);
    let mut body = String::new();
    if hidden > 0 {
        body.push_str(&format!("<p>The first {hidden} lines are left out.</p>\n"));
    }
    body.push_str("<div class=\"scroll\"><table class=\"log\">\n");
    for entry in &entries[hidden..] {
        let (paint, word) = grade(entry.priority);
        let class = paint.map_or_else(String::new, |paint| format!(" class=\"{}\"", class(paint)));
        let source = if entry.unit == "kernel" { String::new() } else { source(entry) };
        body.push_str(&format!(
            "<tr{class}><td class=\"when\">{}</td><td>{}</td><td><strong>{word}</strong>{}</td></tr>\n",
            of_day(entry.at_usec, zone),
            escape(&source),
            escape(&entry.message)
        ));
    }
    body.push_str("</table></div>\n");
    section(id, title, &body)
}

fn unseen(account: &Account) -> String {
    if account.unseen.is_empty() {
        return String::new();
    }
    let items: String = account.unseen.iter().map(|what| format!("<li>{}</li>\n", escape(what))).collect();
    section("unseen", "What could not be read", &format!("<ul>\n{items}</ul>\n"))
}

#[cfg(test)]
mod tests {
    use super::super::runs_gallery::{public, zone};
    use super::*;

    #[test]
    fn the_pages_are_as_they_were_looked_at() {
        insta::assert_snapshot!("failed", html(&public("failed"), &zone()).replace(STYLE, "(html.css)\n"));
        insta::assert_snapshot!("good", html(&public("good"), &zone()).replace(STYLE, "(html.css)\n"));
    }

    #[test]
    fn nothing_from_the_machine_is_markup() {
        let page = html(&public("hostile"), &zone());
        for bad in ["<script", "<img", "onload=\"", "\u{202e}", "\x1b", "javascript:x\""] {
            assert!(!page.contains(bad), "{bad:?}");
        }
        assert!(page.contains("&lt;script&gt;"), "{page}");
        // No element has anything that could load something.
        let tags = page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or_default());
        for tag in tags {
            assert!(!["src=", "href=", "url("].iter().any(|bad| tag.contains(bad)), "{tag}");
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        // Every element that is opened is closed.
        for element in ["table", "tr", "td", "th", "section", "ul", "li", "dl", "tbody", "div", "span"] {
            let opened =
                page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
    }

    #[test]
    fn the_axis_has_a_few_round_marks() {
        for (seconds, most) in [(0.3, 7), (4.2, 7), (41.0, 7), (3_600.0, 7), (1_000_000.0, 7)] {
            let axis = Axis { from: 5, to: 5 + (seconds * 1e6) as u64 };
            let marks = axis.marks().matches("<span").count();
            assert!((2..=most).contains(&marks), "{seconds} s: {}", axis.marks());
        }
        assert_eq!(Axis { from: 0, to: 10 }.percent(20), 100.0);
    }

    #[test]
    #[ignore = "writes the pages for the eyes"]
    fn pages() {
        for name in ["failed", "good", "hostile"] {
            let path = std::env::temp_dir().join(format!("run-{name}.html"));
            std::fs::write(path, html(&public(name), &zone())).expect("writes");
        }
    }
}
