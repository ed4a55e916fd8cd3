//! `nvidia-reload reload` and `nvidia-reload reset`.

use step::{Exit, Verdict};

use super::run::{Order, carry_out};
use super::{Place, guard};
use crate::cli::Reload;
use crate::engine::Asked;
use crate::fault::{Fault, Result};
use crate::report::{Outcome, Report};
use crate::status::{State, state};
use crate::target::Target;
use crate::{plan, status, terminal, view};

/// Shows the plan, asks, and does it: `target` is a reload, or a reset of `gpus` or where none is named
/// of all.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn reload(target: Target, gpus: &[String], arguments: &Reload, place: &mut Place) -> Result<Report> {
    let command = match target {
        Target::Reset => "reset",
        _ => "reload",
    };
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
        State::Busy => status::is_started(&manager, target)?,
        _ => false,
    };
    if joined && !gpus.is_empty() {
        return Err(Fault::refused(
            "a reset is under way, and not known to be of those GPUs; nothing was begun",
            "`nvidia-reload status` shows how far it is; try again when it has ended",
        ));
    }
    if !joined {
        let plan = plan::plan(&place.root, (target == Target::Reset).then_some(gpus))?;
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
            confirm(target)?;
        }
    }
    let order = Order {
        command,
        asked: Asked::Reload,
        unit: target.unit(),
        start: true,
        steps: target.steps(),
        reset: (target == Target::Reset && !joined).then_some(gpus),
        staying: &[],
        joined,
        wait: !arguments.no_wait,
    };
    carry_out(&order, &manager, place)
}

fn confirm(target: Target) -> Result<()> {
    let question = match target {
        Target::Reset => "Reset the GPUs now?",
        _ => "Reload the driver now?",
    };
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
