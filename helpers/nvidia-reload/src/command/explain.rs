// SPDX-License-Identifier: MIT
//! What Xids mean, and what a saved log says. Needs neither root nor a GPU.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::Serialize;
use step::Exit;
use xid::catalogue::{self, Entry, action_in_words};
use xid::{Class, Line};

use crate::cli::Explain;
use crate::fault::{Fault, Result};
use crate::terminal::{Stream, Terminal};
use crate::view;

/// The name and version of the JSON of codes.
const SCHEMA: &str = "nvidia-reload.xids/1";

/// What is known of some codes.
#[derive(Serialize)]
struct Xids {
    schema: &'static str,
    xids: Vec<Known>,
}

/// What is known of a code.
#[derive(Serialize)]
struct Known {
    code: u32,
    mnemonic: &'static str,
    title: &'static str,
    action: Option<&'static str>,
    action_in_words: &'static str,
    class: Class,
    what_we_do: &'static str,
    remark: Option<&'static str>,
}

impl From<&Entry> for Known {
    fn from(entry: &Entry) -> Self {
        let some = |text: &'static str| Some(text).filter(|text| !text.is_empty());
        Self {
            code: entry.code,
            mnemonic: entry.mnemonic,
            title: entry.title,
            action: some(entry.action),
            action_in_words: action_in_words(entry.action),
            class: entry.class,
            what_we_do: entry.what_we_do(),
            remark: some(entry.remark),
        }
    }
}

/// Explains what was asked.
///
/// # Errors
/// A code is in no catalogue, or the log cannot be read.
pub fn explain(arguments: &Explain) -> Result<u8> {
    match &arguments.log {
        Some(log) if log == Path::new("-") => self::log(io::stdin().lock(), "standard input", arguments),
        Some(log) => {
            let name = log.display().to_string();
            let file = File::open(log).map_err(|error| unreadable(&name, &error))?;
            self::log(BufReader::with_capacity(1 << 16, file), &name, arguments)
        }
        None => codes(arguments),
    }
}

fn codes(arguments: &Explain) -> Result<u8> {
    let entries: Vec<&Entry> = match arguments.all {
        true => catalogue::entries().iter().collect(),
        false => arguments.codes.iter().map(|code| known(*code)).collect::<Result<_>>()?,
    };
    if arguments.output.json {
        let xids = entries.into_iter().map(Known::from).collect();
        super::print(&Xids { schema: SCHEMA, xids });
        return Ok(Exit::Done as u8);
    }
    let mut terminal = Terminal::new(Stream::Out);
    let text = match arguments.all {
        true => view::explain::all(&entries, terminal.style()),
        false => view::explain::some(&entries, terminal.style()),
    };
    terminal.write(&text);
    Ok(Exit::Done as u8)
}

fn known(code: u32) -> Result<&'static Entry> {
    catalogue::entry(code).ok_or_else(|| {
        let last = catalogue::entries().last().map_or(0, |entry| entry.code);
        Fault::new(
            Exit::Usage,
            format!("Xid {code} is in no catalogue that this tool knows: they go from 1 to {last}"),
            "an Xid that a driver prints and no catalogue has is for NVIDIA's support; `nvidia-reload explain --all` shows all that are known",
        )
    })
}

fn log(reader: impl BufRead, name: &str, arguments: &Explain) -> Result<u8> {
    let mut out = io::stdout().lock();
    let mut found: Vec<Line> = Vec::new();
    let mut gone = false;
    let lines = xid::read_log(reader, |line| {
        if !arguments.output.json {
            found.push(line);
        } else if !gone && let Ok(text) = serde_json::to_string(&line) {
            // Line by line: a log may be long, and may still be written. A reader who has gone is no error.
            gone = writeln!(out, "{text}").is_err();
        }
    })
    .map_err(|error| unreadable(name, &error))?;
    drop(out);
    if !arguments.output.json {
        let mut terminal = Terminal::new(Stream::Out);
        let text = view::explain::log(&found, lines, terminal.style());
        terminal.write(&text);
    }
    Ok(Exit::Done as u8)
}

fn unreadable(name: &str, error: &io::Error) -> Fault {
    Fault::new(
        Exit::Usage,
        format!("cannot read {name}"),
        "give a file with a kernel log, or - for standard input",
    )
    .because(error)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Arguments, Command};

    fn typed(words: &[&str]) -> std::result::Result<Explain, clap::Error> {
        let words = ["nvidia-reload", "explain"].iter().chain(words);
        match Arguments::try_parse_from(words)?.command {
            Some(Command::Explain(arguments)) => Ok(arguments),
            other => panic!("not explain: {other:?}"),
        }
    }

    #[test]
    fn codes_or_all_or_a_log_and_only_one_of_them() {
        assert_eq!(typed(&["79", "154"]).expect("parses").codes, [79, 154]);
        assert!(typed(&["--all", "--json"]).expect("parses").all);
        assert_eq!(typed(&["--log", "-"]).expect("parses").log.as_deref(), Some(Path::new("-")));
        for bad in [
            &[][..],
            &["--json"],
            &["79", "--all"],
            &["79", "--log", "x"],
            &["--all", "--log", "x"],
            &["xid"],
        ] {
            assert!(typed(bad).is_err(), "{bad:?}");
        }
        let error = typed(&["seventy-nine"]).expect_err("no number").to_string();
        assert!(error.contains("seventy-nine") && error.contains("an Xid is a number"), "{error}");
    }

    #[test]
    fn what_cannot_be_explained_is_named() {
        let fault = explain(&typed(&["79", "999"]).expect("parses")).expect_err("is unknown");
        assert_eq!(fault.exit, Exit::Usage as u8);
        assert!(fault.error.contains("Xid 999") && fault.error.contains("1 to 176"), "{}", fault.error);
        let fault = explain(&typed(&["--log", "/no/such/log"]).expect("parses")).expect_err("is not there");
        assert!(fault.error.contains("/no/such/log"), "{}", fault.error);
        assert_eq!(fault.causes, ["No such file or directory (os error 2)"]);
    }

    #[test]
    fn the_json_is_as_promised() {
        let entries =
            [79, 162].iter().map(|code| known(*code)).collect::<Result<Vec<_>>>().expect("are known");
        let xids = Xids { schema: SCHEMA, xids: entries.into_iter().map(Known::from).collect() };
        insta::assert_snapshot!(serde_json::to_string_pretty(&xids).expect("encodes"));
    }
}
