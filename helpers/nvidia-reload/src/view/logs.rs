// SPDX-License-Identifier: MIT
//! The journal of a run.

use jiff::tz::TimeZone;
use step::Entry;

use super::text::{clean, wrap};
use super::time::of_day;
use super::{Paint, Style};

/// The lines, the oldest first.
pub fn logs(entries: &[Entry], unseen: &[String], style: Style, zone: &TimeZone) -> String {
    let mut page = String::new();
    if entries.is_empty() && unseen.is_empty() {
        page.push_str(
            "The journal has nothing of this run: it is kept for a limited time (journald.conf(5)).\n",
        );
    }
    for entry in entries {
        page.push_str(&line(entry, style, zone));
    }
    for what in unseen {
        page.push_str(&wrap("", &clean(what), style.width));
    }
    page
}

/// One entry.
pub fn line(entry: &Entry, style: Style, zone: &TimeZone) -> String {
    let (paint, word) = grade(entry.priority);
    let head = format!("{} {}: ", of_day(entry.at_usec, zone), source(entry));
    let text = wrap("  ", &format!("{head}{word}{}", clean(&entry.message)), style.width);
    // Hanging: the first line begins where the lines begin.
    let text = text.strip_prefix("  ").unwrap_or(&text);
    match paint {
        Some(paint) => text.replacen(word, &style.paint(paint, word), 1),
        None => text.to_owned(),
    }
}

/// How bad it is, in a word: nothing is shown by colour alone.
pub fn grade(priority: u8) -> (Option<Paint>, &'static str) {
    match priority {
        0..=3 => (Some(Paint::Bad), "error: "),
        4 => (Some(Paint::Attention), "warning: "),
        _ => (None, ""),
    }
}

/// The step, or the unit, that wrote it.
pub fn source(entry: &Entry) -> String {
    let unit = entry.unit.strip_suffix(".service").unwrap_or(&entry.unit);
    clean(unit.strip_prefix("nvidia-reload-").unwrap_or(unit))
}

#[cfg(test)]
mod tests {
    use super::super::runs_gallery::{account, zone};
    use super::super::text::width;
    use super::*;

    #[test]
    fn the_lines_name_the_step_and_how_bad_it_is() {
        let style = Style { colour: false, unicode: true, width: Some(80), verbose: false };
        let page = logs(&account().journal, &["The kernel's messages: x.".into()], style, &zone());
        assert!(page.lines().all(|line| width(line) <= 80), "{page}");
        insta::assert_snapshot!(page);
    }

    #[test]
    fn an_empty_journal_is_said() {
        assert!(logs(&[], &[], Style::PLAIN, &zone()).contains("has nothing of this run"));
    }
}
