// SPDX-License-Identifier: MIT
//! The bench's results as text, as a chart, and in README.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::{Figure, Report, Row, WORSE, median};

/// Each way, in the order in which they are shown, and how people call it.
const ROWS: [(&str, &str); 6] = [
    ("chain", "modprobe -r, modprobe; no containers"),
    ("empty", "reload; no containers"),
    ("hand", "5 containers: docker stop, modprobe, start"),
    ("five", "5 containers: reload"),
    ("kexec", "5 containers: kexec"),
    ("reboot", "5 containers: reboot"),
];
/// What README has around the table.
const BEGIN: &str = "<!-- bench: begin";
const END: &str = "<!-- bench: end -->";

fn rows(report: &Report) -> impl Iterator<Item = (&'static str, &Row)> {
    ROWS.into_iter().filter_map(|(name, label)| Some((label, report.rows.get(name)?)))
}

/// The table that people want to see.
pub fn table(report: &Report) -> String {
    let mut text = format!("{:<44} {:>9} {:>9}  {}\n", "seconds, medians", "command", "downtime", "times");
    for (label, Row { seconds, downtime }) in rows(report) {
        let downtime = if downtime.is_empty() { "-".to_owned() } else { format!("{:.1}", median(downtime)) };
        // Writing into a string does not fail.
        let _ = writeln!(text, "{label:<44} {:>9.1} {downtime:>9}  {:>5}", median(seconds), seconds.len());
    }
    let Report { date, machine, .. } = report;
    let _ = writeln!(text, "{date}: {machine}");
    text
}

/// All figures, with their limits.
pub fn figures(report: &Report) -> String {
    let mut text = String::from("figure                                  value     limit\n");
    for Figure { name, value, limit, unit } in &report.figures {
        let limit = limit.map(|limit| format!("{limit:.2}")).unwrap_or_default();
        let _ = write!(text, "  {name:<36} {value:>6.2} {limit:>9} {unit}");
        text.push_str(if report.is_over(name) { "   over\n" } else { "\n" });
    }
    text
}

impl Report {
    fn is_over(&self, name: &str) -> bool {
        self.figures.iter().any(|figure| figure.name == name && figure.is_over())
    }
}

/// What got worse than the committed figures.
pub fn comparison(before: &Report, now: &Report) -> String {
    let mut text = String::new();
    for figure in &now.figures {
        let old = before.figures.iter().find(|old| old.name == figure.name);
        if let Some(old) = old.filter(|old| figure.value > old.value * WORSE) {
            let _ = writeln!(
                text,
                "worse: {}: {:.2} {unit}, was {:.2} {unit} ({:+.0} %)",
                figure.name,
                figure.value,
                old.value,
                (figure.value / old.value - 1.0) * 100.0,
                unit = figure.unit
            );
        }
    }
    let Report { date, machine, .. } = before;
    if text.is_empty() {
        format!("Nothing is more than 15 % worse than on {date} ({machine}).\n")
    } else {
        text
    }
}

/// The downtimes as horizontal bars.
pub fn chart(report: &Report) -> String {
    const WIDTH: f64 = 720.0;
    const LEFT: f64 = 300.0;
    const STEP: f64 = 28.0;
    let bars: Vec<(&str, f64)> = rows(report)
        .filter(|(_, row)| !row.downtime.is_empty())
        .map(|(label, row)| (label, median(&row.downtime)))
        .collect();
    let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let mut y = 30.0;
    let mut drawn = String::new();
    for (label, value) in bars {
        let length = (WIDTH - LEFT - 60.0) * value / longest;
        let _ = write!(
            drawn,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"18\" fill=\"#4c8c2b\"/>\n\
             <text x=\"{:.1}\" y=\"{}\">{value:.1} s</text>\n",
            LEFT - 8.0,
            y + 14.0,
            LEFT + length + 6.0,
            y + 14.0,
        );
        y += STEP;
    }
    let Report { date, machine, .. } = report;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">Downtime of a container</text>\n\
         {drawn}<text x=\"8\" y=\"{}\" font-size=\"11\">{date}: {machine}</text>\n</svg>\n",
        y + 14.0,
        height = y + 24.0,
    )
}

/// README with this report's table in the place of the one it has.
pub fn in_readme(readme: &str, report: &Report) -> Result<String> {
    let missing = || format!("README.md has no place between \"{BEGIN}\" and \"{END}\"");
    let (before, rest) = readme.split_once(BEGIN).with_context(missing)?;
    let (mark, rest) = rest.split_once('\n').with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    let chart = "![Downtime of a container](docs/bench.svg)";
    Ok(format!("{before}{BEGIN}{mark}\n```text\n{}```\n\n{chart}\n{END}{after}", table(report)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn the_table_fits_a_terminal_and_readme_has_a_place_for_it() {
        let table = table(&report());
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert!(
            table.contains("5 containers: reload                               4.5       3.0"),
            "{table}"
        );
        let readme = std::fs::read_to_string(crate::stages::checkout().join("README.md")).expect("reads");
        let once = in_readme(&readme, &report()).expect("has a place");
        assert!(once.contains(&table));
        assert_eq!(in_readme(&once, &report()).expect("has it still"), once);
        assert!(in_readme("no place", &report()).is_err());
    }

    #[test]
    fn the_committed_figures_are_those_in_readme() {
        let checkout = crate::stages::checkout();
        let Ok(text) = std::fs::read_to_string(checkout.join("tests/rig/bench/figures.json")) else {
            return;
        };
        let committed: Report = serde_json::from_str(&text).expect("decodes");
        let readme = std::fs::read_to_string(checkout.join("README.md")).expect("reads");
        assert_eq!(in_readme(&readme, &committed).expect("has a place"), readme, "cargo rig bench --save");
    }

    #[test]
    fn only_what_got_worse_is_named() {
        let (before, mut now) = (report(), report());
        assert!(comparison(&before, &now).starts_with("Nothing is more than 15 % worse"));
        now.figures[0].value *= 1.2;
        now.figures[1].value *= 1.1;
        now.figures[2].value *= 0.5;
        assert_eq!(
            comparison(&before, &now),
            "worse: empty reload / bare chain: 3.60 x, was 3.00 x (+20 %)\n"
        );
    }

    #[test]
    fn the_longest_bar_is_the_longest_downtime() {
        let chart = chart(&report());
        assert!(chart.contains("width=\"360.0\" height=\"18\"") && chart.contains(">58.0 s<"), "{chart}");
        assert_eq!(chart.matches("<rect").count(), 5, "{chart}");
    }
}
