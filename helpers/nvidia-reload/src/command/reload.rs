//! `nvidia-reload reload`.

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

/// Shows the plan, asks, reloads.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn reload(arguments: &Reload, place: &mut Place) -> Result<Report> {
    guard::root("reload")?;
    guard::switched_on(&place.root)?;
    let (manager, units) = guard::systemd()?;
    let joined = match state(&units) {
        stopped @ (State::Drained | State::Offline) => {
            let (word, target) = match stopped {
                State::Drained => ("drained", Target::Drained),
                _ => ("offline", Target::Offline),
            };
            return Err(Fault::refused(
                format!("the machine is {word} ({} is active); nothing was touched", target.unit()),
                "`nvidia-reload start` gives everything back, with the driver that is on disk then",
            ));
        }
        State::Busy => status::is_started(&manager, Target::Reload)?,
        _ => false,
    };
    if !joined {
        let plan = plan::plan(&place.root)?;
        let style = place.terminal.style();
        place.terminal.write(&format!("{}\n", view::plan::plan(&plan, style)));
        if plan.verdict != Verdict::Ready {
            let outcome = match plan.verdict {
                Verdict::RebootRequired => Outcome::RebootRequired,
                _ => Outcome::Refused,
            };
            let mut report = Report::new("reload", outcome, Target::Reload.unit());
            report.before = plan.driver.clone();
            report.after = plan.driver;
            report.reasons = plan.reasons;
            return Ok(report);
        }
        if !arguments.yes {
            confirm()?;
        }
    }
    let order = Order {
        command: "reload",
        asked: Asked::Reload,
        unit: Target::Reload.unit(),
        start: true,
        steps: Target::Reload.steps(),
        staying: &[],
        joined,
        wait: !arguments.no_wait,
    };
    carry_out(&order, &manager, place)
}

fn confirm() -> Result<()> {
    match terminal::ask("Reload the driver now?") {
        Some(true) => Ok(()),
        Some(false) => Err(Fault::refused("not confirmed; nothing was touched", "")),
        None => Err(Fault::new(
            Exit::Usage,
            "there is no terminal to ask on; nothing was touched",
            "`nvidia-reload reload --yes` does not ask",
        )),
    }
}
