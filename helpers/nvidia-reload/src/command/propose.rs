// SPDX-License-Identifier: MIT
//! The plan before the act: shown, asked about, or all that was asked for.

use step::{Exit, Verdict};

use super::Place;
use crate::cli::Consent;
use crate::fault::{Fault, Result};
use crate::plan::Proposal;
use crate::report::{Outcome, Report};
use crate::{terminal, view};

/// What a command has for an answer.
pub enum Answer {
    /// How the run ended.
    Report(Box<Report>),
    /// The plan alone was asked for.
    Plan(Box<Proposal>),
}

impl From<Report> for Answer {
    fn from(report: Report) -> Self {
        Answer::Report(Box::new(report))
    }
}

/// What follows from a plan.
pub enum Next {
    /// It is done.
    Go(Box<Proposal>),
    /// It is not.
    End(Answer),
}

/// Shows the plan and asks whether to go on: `consent` may have it either way. `name` is what was typed.
///
/// # Errors
/// It is not confirmed, or there is no terminal to ask on.
pub fn propose(
    proposal: Proposal,
    name: &'static str,
    question: &str,
    consent: Consent,
    place: &mut Place,
) -> Result<Next> {
    let hidden = (place.output.quiet && consent.yes) || (place.output.json && consent.dry_run);
    let shown = !hidden;
    if shown {
        let style = place.terminal.style();
        place.terminal.write(&view::plan::plan(&proposal, style));
    }
    if consent.dry_run {
        return Ok(Next::End(Answer::Plan(Box::new(proposal))));
    }
    let plan = &proposal.plan;
    let outcome = match plan.verdict {
        Verdict::Ready => {
            if shown {
                place.terminal.write("\n");
            }
            if !consent.yes {
                confirm(name, question)?;
            }
            return Ok(Next::Go(Box::new(proposal)));
        }
        Verdict::Refused => Outcome::Refused,
        Verdict::RebootRequired => Outcome::RebootRequired,
    };
    if shown {
        place.terminal.write("\n");
    }
    let mut report = Report::new(name, outcome, proposal.command.target().unit());
    report.before = plan.driver.clone();
    report.after = plan.driver.clone();
    report.reasons = plan.reasons.clone();
    report.reasons_shown = shown;
    Ok(Next::End(report.into()))
}

/// Asks `question` for the command `name`.
///
/// # Errors
/// The answer is no, or there is no terminal to ask on.
pub fn confirm(name: &str, question: &str) -> Result<()> {
    match terminal::ask(question) {
        Some(true) => Ok(()),
        Some(false) => Err(Fault::refused("not confirmed; nothing was touched", "")),
        None => Err(Fault::new(
            Exit::Usage,
            "there is no terminal to ask on; nothing was touched",
            format!(
                "`nvidia-reload {name} --yes` does not ask, `nvidia-reload {name} --dry-run` shows the plan"
            ),
        )),
    }
}
