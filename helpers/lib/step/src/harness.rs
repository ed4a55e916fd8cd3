// SPDX-License-Identifier: MIT
//! The frame of a helper: the verbs `run` and `undo`, and what an error turns into.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use ledger::{Ledger, Step};

use crate::admit::{admit, is_left_to_rollback};
use crate::failure::{self, now_usec};
use crate::journal::{Priority, log, log_event};
use crate::{Context, Exit, Message, Root, Stop, fix_path, show_status};

/// What a helper is asked to do. `E` are the verbs that only this helper has.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Verb<E: Subcommand> {
    /// Do the step.
    Run,
    /// Give back what the ledger says that the step took.
    Undo,
    /// A verb of this helper's own.
    #[command(flatten)]
    Extra(E),
}

/// A helper without verbs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum NoVerb {}

#[derive(Parser)]
struct Arguments<E: Subcommand> {
    /// What to do; systemd's units call the helper with `run` and `undo`.
    #[command(subcommand)]
    verb: Verb<E>,
}

/// The `main` of a helper that is `step`.
pub fn main(
    step: Step,
    run: impl FnOnce(&Context) -> Result<()>,
    undo: impl FnOnce(&Context) -> Result<()>,
) -> ExitCode {
    main_with(step, run, undo, |_, verb: NoVerb| match verb {})
}

/// The `main` of a helper that is `step` and has verbs of its own beside `run` and `undo`.
///
/// `extra` prints what it has to say to standard output; its errors are reported like those of the
/// other verbs, but are no part of the run's story: the ledger does not get them.
pub fn main_with<E: Subcommand>(
    step: Step,
    run: impl FnOnce(&Context) -> Result<()>,
    undo: impl FnOnce(&Context) -> Result<()>,
    extra: impl FnOnce(&Context, E) -> Result<ExitCode>,
) -> ExitCode {
    fix_path();
    let verb = verb();
    let root = Root::system();
    let context = match open_ledger(&root) {
        Ok(ledger) => Context { step, root, ledger },
        Err(error) => return fail(step, None, &error),
    };
    let is_run = matches!(verb, Verb::Run);
    let began_usec = now_usec();
    if matches!(verb, Verb::Undo) {
        note_silent_failure(&context);
    }
    let result = match verb {
        Verb::Run => admit(&context).and_then(|()| run(&context)).map(|()| {
            note_done(&context, began_usec);
            Exit::Done.into()
        }),
        Verb::Undo => undo_unless_left(&context, undo).map(|()| Exit::Done.into()),
        Verb::Extra(verb) => extra(&context, verb),
    };
    match result {
        Ok(code) => code,
        Err(error) => fail(step, is_run.then_some(&context), &error),
    }
}

/// Writes when the step's work began and ended. For the account of the run: no reason to fail.
fn note_done(context: &Context, began_usec: u64) {
    let seconds = now_usec().saturating_sub(began_usec) as f64 / 1e6;
    context.info(format!("done in {seconds:.1} s"));
    // Rollback has closed the run.
    if context.step != Step::Rollback
        && let Err(error) = context.ledger.step_done(context.step, began_usec)
    {
        context.warn(format!("the ledger does not have this: {error:#}"));
    }
}

/// What was asked for. What systemd asks for is known without clap: its tables take a tenth of the time of a
/// step that has nothing to do.
fn verb<E: Subcommand>() -> Verb<E> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(verb), None) if verb == "run" => Verb::Run,
        (Some(verb), None) if verb == "undo" => Verb::Undo,
        _ => Arguments::parse().verb,
    }
}

fn undo_unless_left(context: &Context, undo: impl FnOnce(&Context) -> Result<()>) -> Result<()> {
    // Where the ledger cannot be read, the undo says so itself.
    if is_left_to_rollback(context).unwrap_or_default() {
        context.warn(
            "the driver is not loaded again: nvidia-reload-rollback.service tries that once more first",
        );
        return Ok(());
    }
    undo(context)
}

/// A helper that was killed, timed out or never started could not say that its step failed; systemd
/// tells its undo (`SERVICE_RESULT`, systemd.exec(5)), which notes it before anything is unwound.
fn note_silent_failure(context: &Context) {
    let result = std::env::var("SERVICE_RESULT").unwrap_or_default();
    if result.is_empty() || result == "success" || context.step == Step::Preflight {
        // Preflight fails by refusing: then the open run, if any, is not its own.
        return;
    }
    let status = std::env::var("EXIT_STATUS").unwrap_or_default();
    if result == "exit-code" && status == (Exit::Refused as u8).to_string() {
        // It did not join the run.
        return;
    }
    let noted = context.ledger.read().and_then(|run| match run {
        Some(run) if run.failures.iter().all(|(step, _)| *step != context.step) => {
            // So a run ends that is cancelled, and no other way: for a timeout systemd says so.
            if result == "signal" && status == "TERM" {
                return context.ledger.step_cancelled(context.step, "it was cancelled");
            }
            let reason = format!("systemd reports {result} {status}");
            context.event(Message::StepFailed, reason.trim_end(), &[("NVIDIA_RELOAD_RUN", &run.id)]);
            let noted = context.ledger.step_failed(context.step, reason.trim_end());
            failure::save(context, context.step, reason.trim_end());
            noted
        }
        _ => Ok(()),
    });
    if let Err(error) = noted {
        log(context.step, Priority::Error, &format!("the ledger does not have this failure: {error:#}"), &[]);
    }
}

/// The ledger of the machine below `root`, in this boot.
///
/// # Errors
/// The kernel's boot id cannot be read.
pub fn open_ledger(root: &Root) -> Result<Ledger> {
    Ok(Ledger::new(root.path(ledger::DIRECTORY), boot_id(root)?))
}

/// The kernel's id of this boot.
///
/// # Errors
/// It cannot be read.
pub fn boot_id(root: &Root) -> Result<String> {
    use anyhow::Context as _;
    let path = root.path("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Says why, one line first and the causes below it, and notes the failure in the open run.
fn fail(step: Step, run: Option<&Context>, error: &anyhow::Error) -> ExitCode {
    let stop = error.downcast_ref::<Stop>();
    match (run, stop) {
        (Some(_), Some(stop)) => log_event(step, stop.message(), &format!("{error}"), &[]),
        (Some(_), None) => log_event(step, Message::StepFailed, &format!("{error}"), &[]),
        (None, _) => log(step, Priority::Error, &format!("{error}"), &[]),
    }
    for cause in error.chain().skip(1) {
        log(step, Priority::Error, &format!("  because: {cause}"), &[]);
    }
    if run.is_some() {
        // `systemctl status` of the unit shows it, and the command that follows the run.
        show_status(&format!("{error:#}"));
    }
    if matches!(stop, Some(Stop::NotInThisRun(_))) {
        // It is none of the open run's.
    } else if let Some(context) = run.filter(|_| step != Step::Preflight) {
        // Preflight fails before it opens the run; everything else is part of its story.
        match context.ledger.read() {
            Ok(Some(_)) => {
                if let Err(unwritten) = context.ledger.step_failed(step, format!("{error:#}")) {
                    log(step, Priority::Error, &format!("the ledger does not have this: {unwritten:#}"), &[]);
                }
                failure::save(context, step, &format!("{error:#}"));
            }
            Ok(None) => {}
            Err(unread) => log(step, Priority::Error, &format!("{unread:#}"), &[]),
        }
    }
    stop.map_or(Exit::Failed, Stop::exit).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "container x\nMAINPID=812\nSTATUS=\x1b[2J\u{9b}\u{fffd}";

    /// No test of its own: what the one below runs, with a socket and a standard error to look at.
    #[test]
    #[ignore = "run by another test in a process of its own"]
    fn says_odd_things() {
        show_status(&format!("{ODD}{}", "é".repeat(10_000)));
        crate::say(ODD);
        log(Step::Verify, Priority::Info, ODD, &[]);
    }

    #[test]
    fn whatever_a_name_is_systemd_gets_one_field_and_a_terminal_one_line() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("binds");
        let own = std::env::current_exe().expect("is there");
        let output = std::process::Command::new(own)
            .args(["--exact", "harness::tests::says_odd_things", "--ignored", "--nocapture"])
            .env("NOTIFY_SOCKET", &path)
            .output()
            .expect("starts");
        assert!(output.status.success());
        let mut datagram = vec![0; 1 << 16];
        socket.set_nonblocking(true).expect("sets");
        let length = socket.recv(&mut datagram).expect("was sent");
        let said = std::str::from_utf8(&datagram[..length]).expect("is text");
        let escaped = r"container x\nMAINPID=812\nSTATUS=\x1b[2J\u{9b}";
        assert!(said.starts_with(&format!("STATUS={escaped}")), "{said}");
        assert_eq!(said.matches('\n').count(), 1, "one field, and its end: {said}");
        assert!(length < 4096, "systemd would drop {length} bytes");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(stderr.lines().filter(|line| line.starts_with(escaped)).count(), 2, "{stderr}");
        assert!(!stderr.contains('\x1b'), "{stderr}");
    }

    #[derive(Debug, PartialEq, Eq, Subcommand)]
    enum Own {
        List {
            #[arg(long)]
            json: bool,
        },
    }

    #[test]
    fn every_helper_has_run_and_undo_and_some_have_more() {
        let verb = |words: &[&str]| Arguments::<Own>::try_parse_from(words).map(|arguments| arguments.verb);
        assert_eq!(verb(&["x", "run"]).expect("parses"), Verb::Run);
        assert_eq!(verb(&["x", "undo"]).expect("parses"), Verb::Undo);
        assert_eq!(verb(&["x", "list", "--json"]).expect("parses"), Verb::Extra(Own::List { json: true }));
        for bad in [&["x"][..], &["x", "run", "list"], &["x", "frob"]] {
            assert!(verb(bad).is_err());
        }
        assert!(Arguments::<NoVerb>::try_parse_from(["x", "list"]).is_err());
        assert_eq!(Arguments::<NoVerb>::try_parse_from(["x", "run"]).expect("parses").verb, Verb::Run);
    }
}
