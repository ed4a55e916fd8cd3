// SPDX-License-Identifier: MIT
//! Manual pages and shell completions, generated from the description of the command line and from the shipped
//! configuration.

mod config;
mod page;

use std::fs;
use std::path::Path;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::cli::Arguments;
use crate::fault::{Fault, Result};

/// Writes `nvidia-reload.8`, a page for each subcommand, the page of the configuration, and the completions of
/// each shell into `directory`.
///
/// # Errors
/// A file cannot be written.
pub fn generate(directory: &Path) -> Result<()> {
    let failed = |error: &std::io::Error| {
        Fault::new(step::Exit::Failed, format!("cannot write to {}", directory.display()), "").because(error)
    };
    for (name, text) in pages().map_err(|error| failed(&error))? {
        fs::write(directory.join(name), text).map_err(|error| failed(&error))?;
    }
    for shell in Shell::value_variants() {
        if matches!(shell, Shell::Bash | Shell::Zsh | Shell::Fish) {
            let mut command = Arguments::command();
            clap_complete::generate_to(*shell, &mut command, "nvidia-reload", directory)
                .map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}

/// The manual pages: file name and text.
fn pages() -> std::io::Result<Vec<(String, String)>> {
    let command = described();
    let names: Vec<&str> = visible(&command).map(clap::Command::get_name).collect();
    let mut pages = vec![("nvidia-reload.8".to_owned(), page::whole(&command, &names)?)];
    for sub in visible(&command) {
        pages.push((format!("nvidia-reload-{}.8", sub.get_name()), page::of_subcommand(sub)?));
    }
    pages.push(("nvidia-reload-config.5".to_owned(), config::page()));
    Ok(pages)
}

fn described() -> clap::Command {
    let mut command = Arguments::command()
        .disable_help_subcommand(true)
        .mut_subcommands(|sub| sub.disable_version_flag(true));
    command.build();
    command
}

/// The subcommands that a person may use.
fn visible(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_description_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_help_fits_80_columns() {
        let mut command = Arguments::command();
        command.build();
        let mut all = vec![command.clone()];
        all.extend(command.get_subcommands().cloned());
        for mut one in all {
            for text in [one.render_help().to_string(), one.render_long_help().to_string()] {
                let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
                assert!(long.is_empty(), "{}: {long:#?}", one.get_name());
            }
        }
    }

    #[test]
    fn what_acts_has_the_same_options_everywhere() {
        let command = Arguments::command();
        let has = |name: &str, option: &str| {
            let sub = command.find_subcommand(name).unwrap_or_else(|| panic!("no {name}"));
            sub.get_arguments().any(|argument| argument.get_long() == Some(option))
        };
        for name in ["reload", "reset", "stop", "start", "rollback", "recover", "install", "heal"] {
            assert!(has(name, "yes") && has(name, "dry-run"), "{name}");
        }
        for sub in command.get_subcommands().map(clap::Command::get_name).filter(|name| *name != "metrics") {
            assert!(["json", "verbose", "quiet"].iter().all(|option| has(sub, option)), "{sub}");
        }
    }

    #[test]
    fn pages_and_completions_are_written() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        generate(directory.path()).expect("writes");
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).expect("is there");
        assert!(read("nvidia-reload.8").contains("NAME"));
        assert!(read("nvidia-reload-status.8").contains("status/1"));
        assert!(directory.path().join("nvidia-reload-plan.8").exists());
        for name in ["nvidia-reload.bash", "_nvidia-reload", "nvidia-reload.fish"] {
            assert!(read(name).contains("rollback"), "{name}");
            assert!(!read(name).contains("generate"), "{name} offers what is the build's");
        }
    }

    /// A page as a reader has it: without roff's escapes.
    fn plain(text: &str) -> String {
        ["\\fB", "\\fI", "\\fR", "\\&"]
            .iter()
            .fold(text.to_owned(), |text, escape| text.replace(escape, ""))
            .replace("\\-", "-")
    }

    #[test]
    fn every_option_is_described_and_in_its_page() {
        let pages = pages().expect("writes");
        for sub in visible(&described()) {
            let file = format!("nvidia-reload-{}.8", sub.get_name());
            let page =
                pages.iter().find(|(name, _)| *name == file).map(|(_, text)| plain(text)).expect("is there");
            assert!(
                sub.get_about().is_some_and(|about| about.to_string().len() > 10),
                "{file}: no description"
            );
            for argument in sub.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let id = argument.get_id();
                assert!(
                    argument.get_help().is_some_and(|help| help.to_string().len() > 5),
                    "{file}: {id}: no help"
                );
                if let Some(long) = argument.get_long() {
                    assert!(page.contains(&format!("--{long}")), "{file}: no --{long}");
                }
                for name in argument.get_value_names().unwrap_or_default() {
                    let takes = argument.get_action().takes_values();
                    assert!(!takes || page.contains(name.as_str()), "{file}: no {name}");
                }
            }
        }
    }

    #[test]
    fn every_page_has_what_a_reader_looks_for() {
        for (name, text) in pages().expect("writes") {
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "FILES", "SEE ALSO"] {
                let is_there = text
                    .lines()
                    .any(|line| line == format!(".SH {section}") || line == format!(".SH \"{section}\""));
                assert!(is_there, "{name} has no {section}");
            }
            assert_eq!(text.contains(".SH \"EXIT STATUS\""), name.ends_with(".8"), "{name}");
        }
    }

    #[test]
    fn the_examples_can_be_typed() {
        let command = described();
        for sub in visible(&command) {
            let examples = page::examples(sub.get_name());
            assert!(!examples.is_empty(), "{} has no example", sub.get_name());
            for (_, line) in examples {
                // What comes before or after it belongs to the shell.
                let line = line.split(" | ").next().unwrap_or(line).split(" >").next().unwrap_or(line);
                let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches('"')).collect();
                assert_eq!(words[..2], ["nvidia-reload", sub.get_name()], "{line}");
                let parsed = Arguments::try_parse_from(&words);
                assert!(
                    parsed.is_ok(),
                    "{line}: {}",
                    parsed.err().map(|error| error.to_string()).unwrap_or_default()
                );
            }
        }
    }

    #[test]
    fn the_readme_names_every_command() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
        let readme = fs::read_to_string(path).expect("reads");
        for sub in visible(&described()) {
            assert!(readme.contains(&format!("| `{}`", sub.get_name())), "{}", sub.get_name());
        }
    }
}
