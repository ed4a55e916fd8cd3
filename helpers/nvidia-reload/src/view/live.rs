// SPDX-License-Identifier: MIT
//! A run while it goes on: a picture that is drawn again and again, or a line for each thing that happens.

use ledger::Step;
use step::Exit;

use super::text::{clean, cut, seconds};
use super::{Paint, Style};
use crate::follow::{Event, Phase, Progress, State, StepProgress};

/// Where a step's time begins.
const NAME: usize = 18;

/// Where its words begin, counted from its time.
const TIME: usize = 12;

/// The run as it stands, a line a step. No line is longer than the terminal is wide.
pub fn picture(progress: &Progress, style: Style, now_usec: u64) -> Vec<String> {
    progress
        .steps
        .iter()
        // It only runs when something failed; after a refusal it finds nothing to do.
        .filter(|step| {
            step.step != Step::Rollback || (step.state != State::Waiting && refusal(progress).is_none())
        })
        .map(|step| line(step, progress.phase, style, now_usec))
        .collect()
}

/// What stands below the picture while the run goes on.
pub fn footer(progress: &Progress, style: Style) -> String {
    let (paint, text) = match progress.phase {
        Phase::Forward => (Paint::Faint, "Ctrl-C leaves the run to systemd."),
        Phase::Closing => (Paint::Faint, "The work is done; systemd ends the run."),
        Phase::RollingBack if refusal(progress).is_some() => {
            (Paint::Faint, "Nothing was touched; systemd ends the run.")
        }
        Phase::RollingBack => (Paint::Attention, rolling_back(progress)),
        Phase::Restoring => {
            (Paint::Faint, "What was stopped is restarted. Ctrl-C leaves the run to systemd.")
        }
    };
    let room = style.width.unwrap_or(usize::MAX).saturating_sub(2);
    format!("  {}", style.paint(paint, &cut(text, room, style.unicode)))
}

/// How a run was refused: in words.
fn refusal(progress: &Progress) -> Option<&'static str> {
    progress.failed().and_then(refused)
}

/// How a step refused to begin a run: it touched nothing, and there is nothing to undo.
fn refused(step: &StepProgress) -> Option<&'static str> {
    let is = |exit: Exit| step.exit_status == Some(exit as i32);
    match step.step {
        Step::Preflight if is(Exit::Refused) => Some("refused"),
        Step::Preflight if is(Exit::RebootRequired) => Some("no reload can help now"),
        _ => None,
    }
}

fn rolling_back(progress: &Progress) -> &'static str {
    match progress.failed() {
        Some(_) => "The run failed: the steps are rolled back.",
        None => "The steps are rolled back.",
    }
}

/// What an undo is called while it goes on and when it is done: after a failure it rolls back.
fn undo_words(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Restoring => ("restoring", "restored"),
        _ => ("rolling back", "rolled back"),
    }
}

/// What could not be undone.
fn not_undone(phase: Phase) -> &'static str {
    match phase {
        Phase::Restoring => "not everything was restored",
        _ => "not everything was rolled back",
    }
}

fn line(step: &StepProgress, phase: Phase, style: Style, now_usec: u64) -> String {
    let spinner = match style.unicode {
        true => ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"],
        false => ["|", "/", "-", "\\", "|", "/", "-", "\\", "|", "/"],
    };
    let turning = spinner[(now_usec / 100_000 % 10) as usize];
    let (mark, paint) = match step.state {
        State::Waiting => (style.glyph("·", "."), Paint::Faint),
        State::Running | State::Undoing => (turning, Paint::Attention),
        State::Done => (style.glyph("✓", "+"), Paint::Good),
        State::Failed => (style.glyph("✗", "x"), Paint::Bad),
        State::Undone => (style.glyph("↩", "<"), Paint::Attention),
    };
    let time = match step.state {
        State::Waiting => String::new(),
        State::Running | State::Undoing => seconds(step.elapsed(now_usec)),
        State::Undone => step.undo_seconds.map(seconds).unwrap_or_default(),
        State::Done | State::Failed => step.seconds.map(seconds).unwrap_or_default(),
    };
    let words = match step.state {
        State::Waiting => String::new(),
        _ if refused(step).is_some() => refused(step).unwrap_or_default().to_owned(),
        // It looks whether all is as it was, and has nothing of its own to roll back.
        State::Undone if step.step == Step::Rollback && phase != Phase::Restoring => "checked".to_owned(),
        State::Undoing if step.status.is_empty() => undo_words(phase).0.to_owned(),
        State::Undone => undo_words(phase).1.to_owned(),
        State::Failed if step.failed => format!("failed{}", exit(step)),
        State::Failed => not_undone(phase).to_owned(),
        // What it said last is what it was about to do.
        State::Done => "done".to_owned(),
        _ => clean(&step.status),
    };
    let name = step.step.name();
    if step.state == State::Waiting {
        return style.paint(Paint::Faint, &format!("  {mark} {name}"));
    }
    let room = style.width.unwrap_or(usize::MAX).saturating_sub(4 + NAME + TIME);
    let words = cut(&words, room, style.unicode);
    format!("  {} {name:NAME$}{time:TIME$}{words}", style.paint(paint, mark)).trim_end().to_owned()
}

fn exit(step: &StepProgress) -> String {
    step.exit_status.map(|status| format!(", exit status {status}")).unwrap_or_default()
}

/// What happened, as a line of its own; none where it is not worth one.
pub fn sentence(event: &Event, progress: &Progress, style: Style) -> Option<String> {
    match event {
        Event::Joined => Some("A run is under way already: this command follows it.".to_owned()),
        Event::Queued => Some("Waiting for an earlier run to end.".to_owned()),
        Event::Planned { plan, changed } => {
            let changed = if *changed { "The plan has changed since it was shown:\n" } else { "" };
            Some(format!("{changed}{}", super::plan::plan(plan, style)))
        }
        Event::RollingBack if refusal(progress).is_some() => None,
        Event::Step(step) | Event::Status(step)
            if step.step == Step::Rollback && refusal(progress).is_some() =>
        {
            None
        }
        Event::RollingBack => Some(style.paint(Paint::Attention, rolling_back(progress))),
        Event::Status(step) if !step.status.is_empty() => Some(happened(step, &clean(&step.status))),
        Event::Status(_) => None,
        Event::Step(step) => step_sentence(step, progress, style),
    }
}

fn step_sentence(step: &StepProgress, progress: &Progress, style: Style) -> Option<String> {
    let took =
        |seconds: Option<f64>| seconds.map(|time| format!(" in {}", self::seconds(time))).unwrap_or_default();
    let text = match step.state {
        State::Waiting => return None,
        State::Running => style.paint(Paint::Faint, "started"),
        State::Done if progress.phase == Phase::Closing => return None,
        State::Done => format!("{}{}", style.paint(Paint::Good, "done"), took(step.seconds)),
        State::Undoing if refused(step).is_some() => {
            style.paint(Paint::Bad, refused(step).unwrap_or_default())
        }
        // It was said before.
        State::Failed if refused(step).is_some() => return None,
        State::Undoing if step.failed => {
            format!("{}{}, {}", style.paint(Paint::Bad, "failed"), exit(step), undo_words(progress.phase).0)
        }
        State::Undoing => style.paint(Paint::Faint, undo_words(progress.phase).0),
        State::Undone => {
            format!("{}{}", style.paint(Paint::Good, undo_words(progress.phase).1), took(step.undo_seconds))
        }
        State::Failed if step.failed => format!("{}{}", style.paint(Paint::Bad, "failed"), exit(step)),
        State::Failed => style.paint(Paint::Bad, not_undone(progress.phase)),
    };
    Some(happened(step, &text))
}

fn happened(step: &StepProgress, text: &str) -> String {
    format!("  {:NAME$}{text}", step.step.name())
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
