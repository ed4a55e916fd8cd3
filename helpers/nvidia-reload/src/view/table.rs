// SPDX-License-Identifier: MIT
//! Columns that line up, the last one cut where the terminal ends.

use super::text::{clean, cut, pad, width};
use super::{Paint, Style};

/// Between two columns.
const GAP: usize = 2;

/// The last column is worth showing from this width on; the others give way to it.
const LAST: usize = 24;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Its cells end where the heading ends, rather than begin where it begins.
    pub right: bool,
    /// Where room is short it is cut down to this width; 0 for never.
    pub least: usize,
    /// Columns of a lower rank are cut before those of a higher.
    pub rank: u8,
}

/// `rows` under `columns`, each line with an end.
pub fn table(style: Style, columns: &[Column], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            rows.iter().map(|row| width(&row[at])).max().unwrap_or(0).max(width(column.title))
        })
        .collect();
    if let Some(total) = style.width {
        fit(&mut widths, columns, total);
    }
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let cell = match style.width {
                Some(_) => cut(cell, widths[at], style.unicode),
                None => cell.clone(),
            };
            let last = at + 1 == cells.len();
            match (columns[at].right, last) {
                (true, _) => {
                    line.push_str(&format!("{}{cell}", " ".repeat(widths[at].saturating_sub(width(&cell)))))
                }
                (false, false) => line.push_str(&pad(&cell, widths[at])),
                (false, true) => line.push_str(&cell),
            }
            if !last {
                line.push_str(&" ".repeat(GAP));
            }
        }
        line.trim_end().to_owned()
    };
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let mut text = style.paint(Paint::Strong, &line(&titles));
    text.push('\n');
    for row in &rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    text
}

/// Takes from the columns in the order of their rank until the last one has its room.
fn fit(widths: &mut [usize], columns: &[Column], total: usize) {
    let Some(last) = widths.len().checked_sub(1) else { return };
    let wanted = widths[last].min(LAST);
    let taken = |widths: &[usize]| widths[..last].iter().sum::<usize>() + GAP * last;
    let mut order: Vec<usize> = (0..last).filter(|at| columns[*at].least > 0).collect();
    order.sort_by_key(|at| columns[*at].rank);
    for at in order {
        let excess = (taken(widths) + wanted).saturating_sub(total);
        let spare = widths[at].saturating_sub(columns[at].least);
        widths[at] -= excess.min(spare);
    }
    // A terminal too narrow for any table: the lines will wrap.
    widths[last] = widths[last].min(total.saturating_sub(taken(widths)).max(8));
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { title: "OWNER", right: false, least: 12, rank: 0 },
        Column { title: "PID", right: true, least: 0, rank: 0 },
        Column { title: "COMMAND", right: false, least: 0, rank: 0 },
    ];

    fn rows() -> Vec<Vec<String>> {
        [
            ["docker 4f2a91c0b1de", "4242", "python3 train.py --epochs 100 --data /srv/data"],
            ["-", "7", "a\nb"],
        ]
        .iter()
        .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
        .collect()
    }

    #[test]
    fn a_file_gets_everything() {
        insta::assert_snapshot!(table(Style::PLAIN, &COLUMNS, &rows()), @r"
        OWNER                 PID  COMMAND
        docker 4f2a91c0b1de  4242  python3 train.py --epochs 100 --data /srv/data
        -                       7  a\nb
        ");
    }

    #[test]
    fn a_terminal_gets_what_fits() {
        let style = Style { width: Some(48), ..Style::PLAIN };
        let text = table(style, &COLUMNS, &rows());
        assert!(text.lines().all(|line| width(line) <= 48), "{text}");
        insta::assert_snapshot!(text, @r"
        OWNER              PID  COMMAND
        docker 4f2a91c0…  4242  python3 train.py --epoc…
        -                    7  a\nb
        ");
    }
}
