// SPDX-License-Identifier: MIT
//! What the Python script before this program was given, in the words of today.

/// The script's options, and the command that each is now; empty for one that has no command.
const OPTIONS: [(&str, &str); 9] = [
    ("--status", "status"),
    ("-s", "status"),
    ("--verify", "verify"),
    ("--reload", "reload"),
    ("-r", "reload"),
    ("--reset", "reset"),
    ("--stop", "stop"),
    ("--start", "start"),
    ("--driver", "install"),
];

/// Options that it had too, and that mean the same.
const KEPT: [&str; 4] = ["--dry-run", "--yes", "-y", "--json"];

/// What to type instead of `words`, the arguments of this command; none where they are not the script's.
pub fn hint(words: &[String]) -> Option<String> {
    // The script had no commands, only options.
    if words.iter().any(|word| word == "--rollback") {
        return Some(
            "--rollback is two commands now: `nvidia-reload rollback` loads the previous driver, \
             `nvidia-reload recover` ends an interrupted run"
                .to_owned(),
        );
    }
    if words.first().is_some_and(|word| word == "plan") && words.iter().any(|word| word == "--reset") {
        return Some("the plan of a reset is `nvidia-reload plan reset`, with --gpu of some GPUs".to_owned());
    }
    let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let known = |word: &String| OPTIONS.iter().find(|(option, _)| *option == name(word));
    // `--reload --driver FILE` is one command.
    let found = words.iter().filter_map(known).max_by_key(|(_, command)| *command == "install")?;
    let mut typed = format!("nvidia-reload {}", found.1);
    if found.1 == "install" {
        let at = words.iter().position(|word| name(word) == "--driver")?;
        let file = words[at].split_once('=').map(|(_, file)| file).or(words.get(at + 1).map(String::as_str));
        typed.push_str(&format!(" {}", file.filter(|file| !file.starts_with('-')).unwrap_or("FILE")));
    }
    for word in words.iter().filter(|word| KEPT.contains(&word.as_str())) {
        typed.push_str(&format!(" {word}"));
    }
    Some(format!("{} is a command now: `{typed}`", found.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_the_script_has_its_command() {
        let said = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            hint(&words).unwrap_or_default()
        };
        for (line, typed) in [
            ("--status --json", "`nvidia-reload status --json`"),
            ("-s", "`nvidia-reload status`"),
            ("--verify", "`nvidia-reload verify`"),
            ("--reload --dry-run", "`nvidia-reload reload --dry-run`"),
            ("-r -y", "`nvidia-reload reload -y`"),
            ("--reset", "`nvidia-reload reset`"),
            ("--stop", "`nvidia-reload stop`"),
            ("--start", "`nvidia-reload start`"),
            ("--reload --driver /tmp/x.run --yes", "`nvidia-reload install /tmp/x.run --yes`"),
            ("--driver=/tmp/x.run", "`nvidia-reload install /tmp/x.run`"),
            ("--driver", "`nvidia-reload install FILE`"),
            ("--rollback", "`nvidia-reload recover`"),
            ("plan --reset --gpu 0", "`nvidia-reload plan reset`"),
        ] {
            assert!(said(line).contains(typed), "{line}: {}", said(line));
        }
        assert_eq!(said("status --frob"), "");
    }
}
