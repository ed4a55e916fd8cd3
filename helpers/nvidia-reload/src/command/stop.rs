// SPDX-License-Identifier: MIT
//! `nvidia-reload stop`.

use ledger::Step;
use step::RunRequest;

use super::give_back::under_way;
use super::run::{Order, ShowPlan, carry_out};
use super::{Place, guard};
use crate::engine::Asked;
use crate::fault::{Fault, Result};
use crate::report::{Outcome, Report};
use crate::status::{self, State, state};
use crate::target::Target;

/// Stops what holds the GPUs, and with `offline` takes the driver out too.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn stop(offline: bool, place: &mut Place) -> Result<Report> {
    guard::root("stop")?;
    guard::switched_on(&place.root)?;
    let (manager, units) = guard::systemd()?;
    let target = if offline { Target::Offline } else { Target::Drained };
    let mut staying: &[Step] = &[];
    match (state(&units), target) {
        (State::Offline, Target::Drained) => {
            place.terminal.write("The machine is offline, which is more: the driver is out as well.\n");
            return Ok(Report::new("stop", Outcome::NothingToDo, Target::Offline.unit()));
        }
        (State::Offline, _) | (State::Drained, Target::Drained) => {
            return Ok(Report::new("stop", Outcome::NothingToDo, target.unit()));
        }
        (State::Drained, _) => {
            place.terminal.write("The machine is drained; now the driver goes out as well.\n");
            staying = Target::Drained.steps();
        }
        (State::Busy, _) => {
            if let Some(target) = under_way(&manager)? {
                return Err(Fault::refused(
                    format!("a run is under way ({}); nothing was touched", target.unit()),
                    "`nvidia-reload status` shows how far it is; try again when it has ended",
                ));
            }
        }
        _ => {}
    }
    let joined = state(&units) == State::Busy && status::is_started(&manager, target)?;
    let order = Order {
        command: "stop",
        asked: Asked::Stop,
        unit: target.unit(),
        start: true,
        steps: target.steps(),
        request: RunRequest::default(),
        plan: ShowPlan::Never,
        staying,
        joined,
        wait: true,
    };
    carry_out(&order, &manager, place)
}
