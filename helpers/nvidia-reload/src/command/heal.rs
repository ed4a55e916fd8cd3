// SPDX-License-Identifier: MIT
//! `nvidia-reload heal`: the loaded driver's libraries are found, nothing is stopped.

use std::process::Command;
use std::time::{Duration, Instant};

use bus::{Event, Manager};
use serde::{Deserialize, Serialize};
use step::{Exit, Reason, Root};

use super::propose::confirm;
use super::{guard, print};
use crate::cli;
use crate::fault::{Fault, Result};
use crate::helper;
use crate::terminal::{Stream, Terminal};
use crate::view::text::wrap;

/// Who knows.
const HELPER: &str = "/usr/libexec/nvidia-reload/heal";

/// The unit that does it.
const UNIT: &str = "nvidia-reload-heal.service";

/// The unit that ends it.
const END: &str = "nvidia-reload-heal-end.service";

/// How long a look may take: a slot of a gigabyte is read.
const LOOK: Duration = Duration::from_secs(5 * 60);

/// How long the units may take (TimeoutStartSec=), and what systemd takes.
const WORK: Duration = Duration::from_secs(11 * 60);

/// What the helper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Judged {
    schema: String,
    state: String,
    version: Option<String>,
    instead_of: Option<String>,
    reasons: Vec<Reason>,
    does: Vec<String>,
}

/// Does it, or ends it.
///
/// # Errors
/// It is refused, or failed.
pub fn heal(arguments: &cli::Heal) -> Result<u8> {
    guard::root("heal")?;
    let root = Root::system();
    if arguments.end {
        return end(&root, arguments);
    }
    let mut judged = judge()?;
    if judged.state == "possible" && !arguments.consent.dry_run {
        if !(arguments.consent.yes && arguments.output.quiet) {
            let mut terminal = Terminal::new(Stream::Err);
            terminal.write(&text(&judged, true, terminal.style().width));
        }
        if !arguments.consent.yes {
            confirm("heal", "Do it now?")?;
        }
        start(UNIT)?;
        let after = judge()?;
        if after.state != "healed" {
            return Err(Fault::new(
                Exit::Failed,
                format!("{UNIT} ended well, and programs do not find the libraries"),
                format!("`journalctl -u {UNIT}` shows what it did"),
            ));
        }
        judged.state = after.state;
    }
    let exit = match judged.state.as_str() {
        "refused" => Exit::Refused,
        _ => Exit::Done,
    };
    if arguments.output.json {
        print(&judged);
    } else {
        let mut terminal = Terminal::new(Stream::Out);
        terminal.write(&text(&judged, arguments.consent.dry_run, terminal.style().width));
    }
    Ok(exit as u8)
}

fn end(root: &Root, arguments: &cli::Heal) -> Result<u8> {
    let healed = slots::Healed::read(root)?;
    if let Some(healed) = &healed {
        let version = &healed.version;
        let plan =
            format!("Programs that start find the libraries on disk again, not those of driver {version}.\n");
        if arguments.consent.dry_run {
            Terminal::new(Stream::Out).write(&plan);
            return Ok(0);
        }
        if !arguments.consent.yes {
            Terminal::new(Stream::Err).write(&plan);
            confirm("heal --end", "Do it now?")?;
        }
    }
    start(END)?;
    let version = healed.map(|healed| healed.version);
    let said = match &version {
        Some(version) => {
            format!("Programs find the libraries on disk again, not those of driver {version}.\n")
        }
        None => "Nothing was healed.\n".to_owned(),
    };
    if arguments.output.json {
        print(&Judged {
            schema: "nvidia-reload.heal/1".into(),
            state: "ended".into(),
            version,
            instead_of: None,
            reasons: Vec::new(),
            does: Vec::new(),
        });
    } else {
        Terminal::new(Stream::Out).write(&said);
    }
    Ok(0)
}

fn judge() -> Result<Judged> {
    helper::ask(Command::new(HELPER).arg("judge"), LOOK, Exit::Failed)
}

/// Starts `unit` and waits for its end.
fn start(unit: &str) -> Result<()> {
    let manager = Manager::system()?;
    let mut follower = manager.follow(&[unit])?;
    let job = follower.start(unit)?;
    let until = Instant::now() + WORK;
    let result = loop {
        match follower.next(until)? {
            Some(Event::JobEnded { job: ended, result }) if ended.path == job.path => break Some(result),
            Some(Event::Missed) => {
                if let Some(result) = follower.look_for(&job)? {
                    break Some(result);
                }
            }
            Some(_) => {}
            None => break None,
        }
    };
    if result.as_ref().is_some_and(bus::JobResult::is_success) {
        return Ok(());
    }
    // What it said last is why.
    let said = manager.service(unit).map(|service| service.status_text).unwrap_or_default();
    let why = if said.is_empty() { format!("{unit} did not end well") } else { said };
    Err(Fault::new(Exit::Failed, why, format!("`journalctl -u {unit}` shows more")))
}

/// What is, or would be, in lines of at most `columns`.
fn text(judged: &Judged, is_plan: bool, columns: Option<usize>) -> String {
    let version = judged.version.as_deref().unwrap_or("unknown");
    let sentence = |text: &str| wrap("", text, columns);
    match judged.state.as_str() {
        "possible" if is_plan => {
            let mut text = sentence("Nothing is stopped. What is done:");
            text.extend(judged.does.iter().map(|does| wrap("  - ", does, columns)));
            text.push_str(&sentence("The next reload ends it."));
            text
        }
        "healed" => sentence(&format!(
            "Healed: programs that start find the libraries of driver {version}, until the next reload."
        )),
        "not-needed" => sentence(&format!(
            "Nothing to do: the libraries on disk are those of driver {version}, which is loaded."
        )),
        _ => {
            let mut text = sentence("Refused; nothing was touched:");
            for reason in &judged.reasons {
                text.push_str(&wrap("  - ", &reason.what, columns));
                if !reason.remedy.is_empty() {
                    text.push_str(&wrap("    ", &reason.remedy, columns));
                }
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_fits_into_80_columns() {
        let judged = |state: &str| Judged {
            schema: "nvidia-reload.heal/1".into(),
            state: state.into(),
            version: Some("535.261.03".into()),
            instead_of: Some("550.163.01".into()),
            reasons: vec![Reason::new(
                "nvidia-fabricmanager.service does not run: no program on an NVLink fabric could start",
                "`systemctl start nvidia-fabricmanager.service`; `journalctl -u nvidia-fabricmanager.service` shows why it ended",
            )],
            does: vec![
                "programs that start find the libraries of driver 535.261.03 instead of 550.163.01".into(),
            ],
        };
        for state in ["possible", "healed", "not-needed", "refused"] {
            let text = text(&judged(state), true, Some(80));
            assert!(text.lines().all(|line| line.len() <= 80) && text.ends_with('\n'), "{text}");
        }
        let plan = text(&judged("possible"), true, Some(80));
        assert_eq!(
            plan,
            "Nothing is stopped. What is done:\n  - programs that start find the libraries of driver 535.261.03 instead of\n    550.163.01\nThe next reload ends it.\n"
        );
    }
}
