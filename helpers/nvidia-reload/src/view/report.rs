// SPDX-License-Identifier: MIT
//! The summary of a run.

use ledger::Step;
use step::{Reason, Versions};

use super::text::{clean, seconds, wrap};
use super::{Paint, Style, plan};
use crate::fault::Fault;
use crate::report::{Outcome, Report};

/// Where the values begin.
const LABEL: usize = 16;

/// How it ended, in a line, and what is to be known about it below.
pub fn report(report: &Report, style: Style) -> String {
    let (paint, headline) = headline(report, style);
    // The paint goes on last: it has no width, and the line may be wrapped.
    let wrapped = wrap("", &clean(&headline), style.width);
    let mut page: String = wrapped.lines().map(|line| format!("{}\n", style.paint(paint, line))).collect();
    let mut rows = |label: &str, paint: Option<Paint>, texts: &[String]| {
        for (at, text) in texts.iter().enumerate() {
            let label = format!("  {:width$}", if at == 0 { label } else { "" }, width = LABEL - 2);
            let row = wrap(&label, &clean(text), style.width);
            page.push_str(&match paint {
                // The label alone: a paint that runs over the end of a line spills.
                Some(paint) => row.replacen(label.trim(), &style.paint(paint, label.trim()), 1),
                None => row,
            });
        }
    };
    let failures: Vec<String> =
        report.failures.iter().map(|failure| format!("{}: {}", failure.step, failure.reason)).collect();
    rows("because", Some(Paint::Bad), &failures);
    rows("restored", Some(Paint::Good), &report.restored);
    rows("stopped", None, &report.staying);
    let ended: Vec<String> = report.ended.iter().map(|process| format!("{process}: not restarted")).collect();
    rows("killed", Some(Paint::Attention), &ended);
    rows("changed", Some(Paint::Attention), &report.changed);
    rows("stale", Some(Paint::Attention), &report.stale);
    let missing: Vec<String> = report
        .missing
        .iter()
        .map(|missing| match missing.reason.as_str() {
            "" => missing.name.clone(),
            reason => format!("{}: {reason}", missing.name),
        })
        .collect();
    rows("not restored", Some(Paint::Bad), &missing);
    let put_back: Vec<String> =
        report.put_back.iter().flat_map(|put_back| [put_back.sentence(), put_back.remedy.clone()]).collect();
    rows("on disk", Some(Paint::Attention), &put_back);
    for reason in report.reasons.iter().filter(|_| !report.reasons_shown) {
        page.push_str(&plan::reason(reason, Paint::Bad, style));
    }
    if let Some(advice) = advice(report) {
        page.push_str(&wrap("  ", &advice, style.width));
    }
    page
}

fn headline(report: &Report, style: Style) -> (Paint, String) {
    let time = seconds(report.seconds);
    let what = match report.command {
        "reload" => "The reload",
        "reset" => "The reset",
        "install" => "The install",
        "stop" => "The stop",
        "rollback" => "The rollback",
        "recover" => "The recovery",
        "start" => "The start",
        _ => "The run",
    };
    let at = report.failures.first().map(|failure| failure.step).or_else(|| failed_step(report));
    let at = at.map(|step| format!(" at {step}")).unwrap_or_default();
    match report.outcome {
        Outcome::Done if report.command == "reload" || exchanges(report) => {
            (Paint::Good, format!("The driver is reloaded: {}, in {time}.", change(report, style)))
        }
        Outcome::Done if report.command == "reset" => (
            Paint::Good,
            format!("The GPUs are reset and everything is restored, in {time}; {}.", now(&report.after)),
        ),
        Outcome::Done => (Paint::Good, format!("Everything is restored, in {time}; {}.", now(&report.after))),
        Outcome::Stopped if report.unit == "nvidia-offline.target" => (
            Paint::Good,
            format!(
                "The driver is unloaded, after {time}; `nvidia-reload start` loads it and restarts everything."
            ),
        ),
        Outcome::Stopped => (
            Paint::Good,
            format!("Nothing uses the GPUs, after {time}; `nvidia-reload start` restarts everything."),
        ),
        Outcome::NothingToDo => (Paint::Good, nothing(report).to_owned()),
        Outcome::Started => (Paint::Good, format!("{} is started.", report.unit)),
        Outcome::RolledBack => {
            (Paint::Bad, format!("{what} failed{at} and was rolled back, in {time}; {}.", now(&report.after)))
        }
        Outcome::Cancelled => (
            Paint::Attention,
            format!("{what} was cancelled and rolled back, in {time}; {}.", now(&report.after)),
        ),
        Outcome::Failed => (Paint::Bad, format!("{what} failed{at} before anything was touched.")),
        Outcome::Refused => (Paint::Bad, format!("{what} was refused; nothing was touched.")),
        Outcome::RebootRequired => {
            (Paint::Bad, "A reboot is required: no reload can help now; nothing was touched.".to_owned())
        }
        Outcome::Degraded if report.committed => (
            Paint::Bad,
            format!(
                "{what} is done, in {time}, but finished degraded: not everything is restored; {}.",
                now(&report.after)
            ),
        ),
        Outcome::Degraded => (
            Paint::Bad,
            format!(
                "{what} ended{at} after {time}, and finished degraded: not everything is restored; {}.",
                now(&report.after)
            ),
        ),
        Outcome::Unfinished => (Paint::Bad, format!("{what} has not ended{at} after {time}.")),
        Outcome::Interrupted => {
            (Paint::Attention, "The run goes on in systemd without this command.".to_owned())
        }
    }
}

/// Whether another driver was put on disk, rather than things restored.
fn exchanges(report: &Report) -> bool {
    report.command == "install" || (report.command == "rollback" && report.unit == "nvidia-reload.target")
}

/// The first step that failed, as systemd saw it.
fn failed_step(report: &Report) -> Option<Step> {
    report.steps.iter().find(|step| step.result == crate::follow::State::Failed).map(|step| step.step)
}

fn nothing(report: &Report) -> &'static str {
    match report.command {
        "start" => "Nothing is stopped: there is nothing to restart.",
        "stop" => "It is stopped already.",
        "recover" => "No run is open: there is nothing to recover.",
        _ => "There is nothing to do.",
    }
}

fn change(report: &Report, style: Style) -> String {
    match (&report.before.loaded, &report.after.loaded) {
        (Some(before), Some(after)) if before != after => {
            format!("{before} {} {after}", style.glyph("→", "->"))
        }
        (_, Some(after)) => after.clone(),
        (_, None) => "no driver is loaded".to_owned(),
    }
}

fn now(versions: &Versions) -> String {
    match &versions.loaded {
        Some(version) => format!("driver {version} is loaded"),
        None => "no driver is loaded".to_owned(),
    }
}

fn advice(report: &Report) -> Option<String> {
    let journal = "`journalctl -b -u 'nvidia-reload-*'` shows what it did.";
    match report.outcome {
        Outcome::Interrupted | Outcome::Started => Some(format!(
            "`journalctl -f -u 'nvidia-reload-*'` follows the run, `nvidia-reload {}` looks on again, `systemctl stop {}` cancels it and rolls it back.",
            report.command, report.unit
        )),
        Outcome::RolledBack | Outcome::Cancelled | Outcome::Failed | Outcome::Degraded => {
            Some(journal.to_owned())
        }
        Outcome::Unfinished => {
            Some(format!("{journal} `nvidia-reload recover` ends a run that was interrupted."))
        }
        Outcome::Refused if !report.reasons_shown && !report.reasons.is_empty() => {
            Some(format!("`nvidia-reload {} --dry-run` shows the whole plan.", report.command))
        }
        Outcome::Refused if report.reasons.is_empty() => {
            Some("`journalctl -b -u nvidia-reload-preflight.service` says why.".to_owned())
        }
        _ => None,
    }
}

/// Why the command could not do what was asked.
pub fn fault(fault: &Fault, style: Style) -> String {
    let text = wrap("error: ", &clean(&fault.error), style.width);
    let mut page = text.replacen("error:", &style.paint(Paint::Bad, "error:"), 1);
    if !fault.remedy.is_empty() {
        page.push_str(&wrap("  ", &clean(&fault.remedy), style.width));
    }
    for cause in &fault.causes {
        page.push_str(&wrap("  because: ", &clean(cause), style.width));
    }
    page
}

/// A reason of a refusal, as the summary lists it.
pub fn reasons(reasons: &[Reason], style: Style) -> String {
    reasons.iter().map(|reason| plan::reason(reason, Paint::Bad, style)).collect()
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
