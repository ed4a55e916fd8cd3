//! Manual pages and shell completions, made from the same description as the command itself.

use std::fs;
use std::path::Path;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::cli::Arguments;
use crate::fault::{Fault, Result};

/// Writes `nvidia-reload.8`, a page for each subcommand, and the completions of each shell into
/// `directory`.
///
/// # Errors
/// A file cannot be written.
pub fn generate(directory: &Path) -> Result<()> {
    let failed = |error: &std::io::Error| {
        Fault::new(step::Exit::Failed, format!("cannot write to {}", directory.display()), "").because(error)
    };
    let mut command = Arguments::command().mut_subcommands(|sub| sub.disable_version_flag(true));
    command.build();
    page(&command, "nvidia-reload", directory).map_err(|error| failed(&error))?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        page(sub, &format!("nvidia-reload-{}", sub.get_name()), directory).map_err(|error| failed(&error))?;
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

fn page(command: &clap::Command, name: &str, directory: &Path) -> std::io::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name.to_owned())
        .section("8")
        .manual("System Administration")
        .render(&mut text)?;
    fs::write(directory.join(format!("{name}.8")), text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
