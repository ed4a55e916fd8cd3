// SPDX-License-Identifier: MIT
//! `nvidia-reload reload` and `nvidia-reload reset`.

use step::{Exit, RunRequest, Verdict};

use super::run::{Order, ShowPlan, carry_out};
use super::{Place, guard};
use crate::cli::Reload;
use crate::engine::Asked;
use crate::fault::{Fault, Result};
use crate::report::{Outcome, Report};
use crate::status::{State, state};
use crate::target::Target;
use crate::{plan, status, terminal, view};

/// A reload or a reset, and what comes with it.
pub struct Way<'a> {
    /// What was typed.
    pub command: &'static str,
    /// What is reached.
    pub target: Target,
    /// The GPUs of a reset; none for all.
    pub gpus: &'a [String],
    /// What is asked before it begins.
    pub question: String,
    /// The version that the run is asked to put on disk, and what makes that ready while everything still
    /// runs.
    pub exchange: Option<(&'a str, &'a mut Exchange<'a>)>,
}

/// Makes ready what a run is asked to put on disk.
pub type Exchange<'a> = dyn FnMut(&mut Place) -> Result<ledger::Install> + 'a;

/// Shows the plan, asks, and does it: `target` is a reload, or a reset of `gpus` or where none is named
/// of all.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn reload(target: Target, gpus: &[String], arguments: &Reload, place: &mut Place) -> Result<Report> {
    let (command, question) = match target {
        Target::Reset => ("reset", "Reset the GPUs now?"),
        _ => ("reload", "Reload the driver now?"),
    };
    run(Way { command, target, gpus, question: question.to_owned(), exchange: None }, arguments, place)
}

/// Shows the plan, asks, and goes that way.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn run(way: Way<'_>, arguments: &Reload, place: &mut Place) -> Result<Report> {
    let Way { command, target, gpus, question, exchange } = way;
    guard::root(command)?;
    guard::switched_on(&place.root)?;
    let (manager, units) = guard::systemd()?;
    let joined = match state(&units) {
        stopped @ (State::Drained | State::Offline) => {
            let (word, holds) = match stopped {
                State::Drained => ("drained", Target::Drained),
                _ => ("offline", Target::Offline),
            };
            return Err(Fault::refused(
                format!("the machine is {word} ({} is active); nothing was touched", holds.unit()),
                "`nvidia-reload start` gives everything back, with the driver that is on disk then",
            ));
        }
        State::Busy | State::GivingBack if exchange.is_some() => return Err(under_way()),
        State::Busy => status::is_started(&manager, target)?,
        _ => false,
    };
    if joined && !gpus.is_empty() {
        return Err(Fault::refused(
            "a reset is under way, and not known to be of those GPUs; nothing was begun",
            "`nvidia-reload status` shows how far it is; try again when it has ended",
        ));
    }
    let mut shown = None;
    // Who asks nothing first is shown the plan of the run itself. What makes another driver ready takes minutes.
    if !joined && (!arguments.yes || exchange.is_some()) {
        let wanted = plan::Wanted {
            reset: (target == Target::Reset).then_some(gpus),
            exchange: exchange.as_ref().map(|(version, _)| *version),
            if_idle: arguments.if_idle,
        };
        let plan = plan::plan(&place.root, wanted)?;
        let style = place.terminal.style();
        place.terminal.write(&format!("{}\n", view::plan::plan(&plan, style)));
        if plan.verdict != Verdict::Ready {
            let outcome = match plan.verdict {
                Verdict::RebootRequired => Outcome::RebootRequired,
                _ => Outcome::Refused,
            };
            let mut report = Report::new(command, outcome, target.unit());
            report.before = plan.driver.clone();
            report.after = plan.driver;
            report.reasons = plan.reasons;
            return Ok(report);
        }
        if !arguments.yes {
            confirm(&question)?;
        }
        shown = Some(Box::new(plan));
    }
    let install = exchange.map(|(_, prepare)| prepare(place)).transpose()?;
    let reset = (target == Target::Reset && !joined).then(|| gpus.to_vec());
    let if_idle = arguments.if_idle && !joined;
    let order = Order {
        command,
        asked: Asked::Reload,
        unit: target.unit(),
        start: true,
        steps: target.steps(),
        request: RunRequest { reset, install, if_idle, hold: false },
        plan: ShowPlan::UnlessShown(shown),
        staying: &[],
        joined,
        wait: !arguments.no_wait,
    };
    carry_out(&order, &manager, place)
}

fn under_way() -> Fault {
    Fault::refused(
        "another run is under way; nothing was touched",
        "`nvidia-reload status` shows how far it is; try again when it has ended",
    )
}

fn confirm(question: &str) -> Result<()> {
    match terminal::ask(question) {
        Some(true) => Ok(()),
        Some(false) => Err(Fault::refused("not confirmed; nothing was touched", "")),
        None => Err(Fault::new(
            Exit::Usage,
            "there is no terminal to ask on; nothing was touched",
            "with --yes nothing is asked",
        )),
    }
}
