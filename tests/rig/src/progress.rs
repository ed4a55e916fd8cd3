// SPDX-License-Identifier: MIT
//! What the rig says about itself, always on standard error: standard output
//! belongs to the scenario.

use std::io::{BufRead, IsTerminal};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The spinners of a terminal, of which there may be several at once.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Says one line.
pub fn note(line: impl AsRef<str>) {
    BARS.suspend(|| eprintln!("rig: {}", line.as_ref()));
}

/// Says how a test ended, on standard output.
pub fn result(text: &str) {
    BARS.suspend(|| print!("{text}"));
}

/// A piece of work that takes long enough to be watched: a spinner with the
/// time and the last line of output on a terminal, plain lines elsewhere.
pub struct Work {
    what: String,
    since: Instant,
    bar: Option<ProgressBar>,
}

impl Work {
    /// Announces the work; `what` reads on after "rig: ".
    pub fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = BARS.add(ProgressBar::new_spinner()).with_message(what.clone());
            let style = "rig: {spinner} {msg} ({elapsed}) {wide_msg:.dim}";
            if let Ok(style) =
                ProgressStyle::with_template(&style.replace("{wide_msg:.dim}", "{prefix:.dim}"))
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            note(format!("{what} …"));
        }
        Work { what, since: Instant::now(), bar }
    }

    /// Shows where the work is.
    pub fn detail(&self, line: &str) {
        if let Some(bar) = &self.bar {
            let shown: String = line.trim().chars().take(60).collect();
            bar.set_prefix(shown);
        }
    }

    /// Shows the lines of `output` as they come, until it ends.
    pub fn follow(&self, output: impl BufRead) -> Vec<String> {
        let mut lines = Vec::new();
        for line in output.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if !line.trim().is_empty() {
                self.detail(&line);
                lines.push(line);
            }
        }
        lines
    }

    /// The work is done: says so, with the time it took.
    pub fn done(self) {
        let seconds = self.since.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        note(format!("{}: done in {seconds:.0} s", self.what));
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
