// SPDX-License-Identifier: MIT
//! Where the reader is: what it can show, and drawing in place where that is possible.

use std::env;
use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::tcgetwinsize;

use crate::cli::Output;
use crate::follow::{Event, Progress, Sink};
use crate::view::Style;
use crate::view::live::{footer, picture, sentence};

/// Standard output, or standard error when standard output carries JSON.
pub struct Terminal {
    stream: Stream,
    style: Style,
    rows: Option<usize>,
    drawn: usize,
    quiet: bool,
}

/// Where text for people goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// It is the answer.
    Out,
    /// It goes beside an answer in JSON, or is an error.
    Err,
}

impl Terminal {
    /// The reader at `stream`.
    pub fn new(stream: Stream) -> Self {
        let (is_terminal, size) = match stream {
            Stream::Out => (io::stdout().is_terminal(), tcgetwinsize(io::stdout()).ok()),
            Stream::Err => (io::stderr().is_terminal(), tcgetwinsize(io::stderr()).ok()),
        };
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_none_or(|term| term == "dumb");
        // A serial line does not know its size.
        let size =
            size.filter(|size| size.ws_col > 0).map(|size| (size.ws_col as usize, size.ws_row as usize));
        let style = Style {
            colour: is_terminal && !dumb && set("NO_COLOR").is_none(),
            unicode: !is_terminal || speaks_utf8(set),
            width: is_terminal.then(|| size.map_or(80, |size| size.0)),
            verbose: false,
        };
        Self {
            stream,
            style,
            rows: size.filter(|_| is_terminal && !dumb).map(|size| size.1),
            drawn: 0,
            quiet: false,
        }
    }

    /// As much as `output` asks for.
    pub fn with(mut self, output: Output) -> Self {
        self.style.verbose = output.verbose;
        self.quiet = output.quiet;
        self
    }

    /// Writes what happens on the way, unless that is not wanted.
    pub fn note(&mut self, text: &str) {
        if !self.quiet {
            self.write(text);
        }
    }

    /// What the reader can be shown.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Writes `text`. A reader who has gone is no reason to stop.
    pub fn write(&mut self, text: &str) {
        self.drawn = 0;
        self.put(text);
    }

    fn put(&mut self, text: &str) {
        let _ = match self.stream {
            Stream::Out => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Stream::Err => io::stderr().lock().write_all(text.as_bytes()),
        };
    }

    /// Draws the picture over the one before, if it fits.
    fn draw(&mut self, progress: &Progress, now_usec: u64, last: bool) -> bool {
        let mut lines = picture(progress, self.style, now_usec);
        if !last {
            lines.push(footer(progress, self.style));
        }
        // Rows that have scrolled away cannot be drawn again.
        if self.rows.is_none_or(|rows| lines.len() + 2 > rows) {
            return false;
        }
        // In one write, each line cleared only behind its text: nothing flickers.
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\r", self.drawn));
        }
        for line in &lines {
            text.push_str(&format!("{line}\x1b[K\n"));
        }
        text.push_str("\x1b[J");
        self.put(&text);
        self.drawn = lines.len();
        true
    }
}

/// Whether the locale says that the terminal takes UTF-8. ssh brings it along.
fn speaks_utf8(set: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

impl Sink for Terminal {
    fn event(&mut self, event: &Event, progress: &Progress, now_usec: u64) {
        if self.quiet {
            return;
        }
        let in_picture = matches!(event, Event::Step(_) | Event::Status(_) | Event::RollingBack);
        if in_picture && self.draw(progress, now_usec, false) {
            return;
        }
        if let Some(text) = sentence(event, progress, self.style) {
            // What the picture was drawn on is written over; it is drawn again below.
            if self.drawn > 0 {
                self.put(&format!("\x1b[{}A\r\x1b[J", self.drawn));
            }
            self.write(&format!("{text}\n"));
        }
    }

    fn tick(&mut self, progress: &Progress, now_usec: u64) {
        if self.quiet {
            return;
        }
        self.draw(progress, now_usec, false);
    }

    fn end(&mut self, progress: &Progress, now_usec: u64) {
        if self.quiet {
            return;
        }
        self.draw(progress, now_usec, true);
    }
}

/// Asks `question` on standard error and says whether the answer is yes; none if there is no terminal
/// to ask.
pub fn ask(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let mut err = io::stderr().lock();
    let _ = write!(err, "{question} [y/N] ");
    let _ = err.flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).ok()?;
    if !answer.ends_with('\n') {
        let _ = writeln!(err);
    }
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
