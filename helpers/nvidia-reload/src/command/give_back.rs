//! `nvidia-reload start` and `nvidia-reload rollback`: the two ways to have everything back.

use bus::{ActiveState, Manager};
use ledger::Step;

use super::run::{Order, carry_out};
use super::{Place, guard, install};
use crate::cli::Rollback;
use crate::engine::Asked;
use crate::fault::{Fault, Result};
use crate::report::{Outcome, Report};
use crate::status::{self, Units, state_of};
use crate::target::Target;

/// Gives back what `stop` took.
///
/// # Errors
/// Something else is under way, or systemd refuses.
pub fn start(place: &mut Place) -> Result<Report> {
    guard::root("start")?;
    let (manager, units) = guard::systemd()?;
    if let Some(target) = stopped(&manager, &units)? {
        return leave(target, "start", &manager, place);
    }
    if let Some(target) = under_way(&manager)? {
        return Err(Fault::refused(
            format!("a run is under way ({}), and nothing else is stopped", target.unit()),
            format!("`systemctl stop {}` cancels it and gives everything back", target.unit()),
        ));
    }
    if let Some(run) = step::open_ledger(&place.root)?.read()? {
        return Err(Fault::refused(
            format!("nothing is stopped on purpose, but run {} is open", run.id),
            "`nvidia-reload rollback` gives back what it took",
        ));
    }
    Ok(Report::new("start", Outcome::NothingToDo, Target::Drained.unit()))
}

/// Ends a run that was left open; without one, goes back to a driver that is kept.
///
/// # Errors
/// The ledger cannot be read, or systemd refuses.
pub fn rollback(arguments: &Rollback, place: &mut Place) -> Result<Report> {
    guard::root("rollback")?;
    let unit = Step::Rollback.unit();
    match step::open_ledger(&place.root)?.read()? {
        None => return install::back_to(arguments.version.as_deref(), &arguments.reload, place),
        Some(run) if arguments.version.is_some() => {
            return Err(Fault::refused(
                format!("run {} is open: it has to end before another can begin", run.id),
                "`nvidia-reload rollback` without a version ends it",
            ));
        }
        Some(_) => {}
    }
    let (manager, units) = guard::systemd()?;
    // While systemd holds the steps, the way back is theirs: stopping the target is what unwinds.
    if let Some(target) = stopped(&manager, &units)? {
        return leave(target, "rollback", &manager, place);
    }
    if let Some(target) = under_way(&manager)? {
        place.terminal.write("A run is under way: it is cancelled.\n");
        return leave(target, "rollback", &manager, place);
    }
    let order = Order {
        command: "rollback",
        asked: Asked::GiveBack,
        unit: &unit,
        start: true,
        steps: &[],
        reset: None,
        install: None,
        if_idle: false,
        staying: &[],
        joined: false,
        wait: true,
    };
    carry_out(&order, &manager, place)
}

/// The target that keeps things stopped, or is about to.
fn stopped(manager: &Manager, units: &Units) -> Result<Option<Target>> {
    for target in [Target::Offline, Target::Drained] {
        if state_of(units, target.unit()) == ActiveState::Active || status::is_started(manager, target)? {
            return Ok(Some(target));
        }
    }
    Ok(None)
}

/// The target that is about to be reached and ends by itself.
pub fn under_way(manager: &Manager) -> Result<Option<Target>> {
    for target in [Target::Reload, Target::Reset] {
        if status::is_started(manager, target)? {
            return Ok(Some(target));
        }
    }
    Ok(None)
}

/// Stops `target`, whose steps then give back.
fn leave(target: Target, command: &'static str, manager: &Manager, place: &mut Place) -> Result<Report> {
    let order = Order {
        command,
        asked: Asked::GiveBack,
        unit: target.unit(),
        start: false,
        steps: target.steps(),
        reset: None,
        install: None,
        if_idle: false,
        staying: &[],
        joined: false,
        wait: true,
    };
    carry_out(&order, manager, place)
}
