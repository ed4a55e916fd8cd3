// SPDX-License-Identifier: MIT
//! Text for people, made of typed data and of nothing else.

pub mod check;
pub mod explain;
#[cfg(test)]
mod gallery;
pub mod history;
pub mod holders;
pub mod html;
pub mod lease;
pub mod live;
pub mod logs;
pub mod plan;
pub mod report;
pub mod request;
pub mod run;
#[cfg(test)]
pub mod runs_gallery;
pub mod settings;
pub mod slots;
pub mod status;
pub mod table;
pub mod text;
pub mod time;
pub mod verdict;
pub mod verify;

/// What the place where the text goes can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Colours and weights.
    pub colour: bool,
    /// More than ASCII.
    pub unicode: bool,
    /// Columns; none where lines may have any length, as in a file.
    pub width: Option<usize>,
    /// Every detail.
    pub verbose: bool,
}

impl Style {
    /// For files and pipes.
    pub const PLAIN: Style = Style { colour: false, unicode: true, width: None, verbose: false };

    /// `text` in `paint`, where there is colour.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        format!("\x1b[{}m{text}\x1b[0m", paint.code())
    }

    /// `unicode` where it can be shown, else `ascii`.
    pub fn glyph(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }
}

/// How a text stands out. Every meaning is in the words too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it should be.
    Good,
    /// Deserves attention.
    Attention,
    /// Wrong.
    Bad,
    /// A heading.
    Strong,
    /// Beside the point.
    Faint,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Paint::Good => "32",
            Paint::Attention => "33",
            Paint::Bad => "31;1",
            Paint::Strong => "1",
            Paint::Faint => "2",
        }
    }
}
