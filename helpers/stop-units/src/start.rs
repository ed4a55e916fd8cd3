//! The way back: what was stopped is started, in reverse order.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use as_user::Started;
use bus::{Manager, Up};
use ledger::{Act, Object, Run, Step, Unit};
use step::Context;

use crate::closure::SERVICE;
use crate::stop::shown;
use crate::{transient, users};

/// How long the starts may take together. A unit that is ordered after the run's own target does
/// not start before this step has ended: it is left in the manager's queue.
const PATIENCE: Duration = Duration::from_secs(90);

/// Starts the system's units; those of users as well, unless drain-containers has something of the
/// system's to restart: that comes first, and then it calls [`undo_users`].
pub(crate) fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let Some((system, users)) = outstanding(context, &run) else { return Ok(()) };
    let mut problems = restore_system(context, &run, &system);
    let is_systems = |act: &Act| match &act.object {
        Object::Container(container) => container.user.is_none(),
        _ => true,
    };
    if users.is_empty() || !run.outstanding(Step::DrainContainers).iter().any(is_systems) {
        problems.extend(restore_users(context, &run, users));
    }
    end(&problems)
}

/// Starts the units of users.
pub(crate) fn undo_users(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let Some((_, users)) = outstanding(context, &run) else { return Ok(()) };
    end(&restore_users(context, &run, users))
}

fn end(problems: &[String]) -> Result<()> {
    if !problems.is_empty() {
        bail!("not every unit is back: {}", problems.join("; "));
    }
    Ok(())
}

/// An act that took a unit.
type Taken = (u64, Unit);

/// Those of each user.
type OfUsers = BTreeMap<u32, Vec<Taken>>;

/// The units to start: the system's, and those of each user. None where there are none, or where the next
/// boot starts them.
fn outstanding(context: &Context, run: &Run) -> Option<(Vec<Taken>, OfUsers)> {
    let (mut system, mut users) = (Vec::new(), OfUsers::new());
    for act in run.outstanding(Step::StopUnits) {
        let Object::Unit(unit) = act.object else { continue };
        let taken = unit.user.map_or(&mut system, |uid| users.entry(uid).or_default());
        taken.push((act.id, unit));
    }
    if system.is_empty() && users.is_empty() {
        return None;
    }
    match bus::is_stopping() {
        Ok(true) => {
            context.info("the machine is going down: the units are started by the next boot");
            return None;
        }
        Ok(false) => {}
        // To leave units down for want of an answer would be the greater wrong.
        Err(error) => context.warn(format!("cannot tell whether the machine is going down: {error}")),
    }
    Some((system, users))
}

fn restore_system(context: &Context, run: &Run, acts: &[Taken]) -> Vec<String> {
    if acts.is_empty() {
        return Vec::new();
    }
    context.status(format!("starting units: {}", acts.len()));
    let mut problems = Vec::new();
    let mut follower = match Manager::system().and_then(|manager| manager.follow(&[])) {
        Ok(follower) => follower,
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::from(error));
            for taken in acts {
                problems.extend(note(context, run, taken, Err(why.clone())));
            }
            return problems;
        }
    };
    for wave in waves(acts) {
        let names: Vec<&str> = wave.iter().map(|(_, unit)| unit.name.as_str()).collect();
        let mut revive = |name: &str| transient::revive(&context.root, name);
        bus::start_each(&mut follower, &names, PATIENCE, &mut revive, |at, result| {
            if matches!(result, Ok(Up::Already | Up::Started)) {
                transient::forget(&context.root, names[at]);
            }
            let result = result.map(|up| match up {
                Up::Already => Started::Already,
                Up::Started => Started::Started,
                Up::Queued => Started::Queued,
            });
            problems.extend(note(context, run, wave[at], result));
        });
    }
    problems
}

fn restore_users(context: &Context, run: &Run, users: OfUsers) -> Vec<String> {
    if users.is_empty() {
        return Vec::new();
    }
    context.status(format!("starting units of users: {}", users.values().map(Vec::len).sum::<usize>()));
    let results = users::side_by_side(users.into_iter().collect(), |(uid, acts)| {
        let names = waves(&acts).map(|wave| wave.iter().map(|(_, unit)| unit.name.clone()).collect());
        let started = users::start(&context.root, uid, &names);
        (acts, started)
    });
    let mut problems = Vec::new();
    for (acts, started) in results {
        let taken = waves(&acts).into_iter().flatten();
        for (taken, started) in taken.zip(started.into_iter().flatten()) {
            let result = match started {
                Ok(Started::Failed(why)) => Err(why),
                started => started,
            };
            problems.extend(note(context, run, taken, result));
        }
    }
    problems
}

/// Writes down what came of a start; a sentence where the unit does not run, or the ledger cannot be
/// written.
fn note(context: &Context, run: &Run, (id, unit): &Taken, result: Result<Started, String>) -> Option<String> {
    let name = shown(unit.user, &unit.name);
    let (noted, problem) = match result {
        Ok(Started::Already) => (context.ledger.undone(*id), None),
        Ok(Started::Queued) => {
            context.warn(format!("the start of {name} is queued: something else comes first"));
            (context.ledger.undone(*id), None)
        }
        Ok(_) => {
            context.info(format!("started {name}"));
            (context.ledger.undone(*id), None)
        }
        // What ran in the user's session of another boot went with that boot.
        Err(why) if unit.user.is_some() && run.boot != context.ledger.boot() => {
            context.warn(format!("{name} is not started: the machine was restarted, and {why}"));
            (context.ledger.lost(*id, format!("the machine was restarted, and {why}")), None)
        }
        Err(why) => (context.ledger.undo_failed(*id, &why), Some(format!("{name}: {why}"))),
    };
    let unwritten = noted.err().map(|error| format!("{name}: the ledger does not have this: {error:#}"));
    match (problem, unwritten) {
        (Some(problem), Some(unwritten)) => Some(format!("{problem}; {unwritten}")),
        (problem, unwritten) => problem.or(unwritten),
    }
}

/// What is started together, wave after wave: sockets, which cannot be started once their service
/// runs; then who serves the others; then the rest.
fn waves(acts: &[Taken]) -> [Vec<&Taken>; 3] {
    let (sockets, others): (Vec<_>, Vec<_>) =
        acts.iter().partition(|(_, unit)| unit.name.ends_with(".socket"));
    let (services, rest) = others.into_iter().partition(|(_, unit)| unit.role == SERVICE);
    [sockets, services, rest]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_comes_before_its_service() {
        let unit = |name: &str, role: &str| Unit { name: name.into(), user: None, role: role.into() };
        let units =
            [unit("a.service", "holder"), unit("a.socket", "trigger"), unit("fabric.service", SERVICE)];
        let acts: Vec<Taken> = units.into_iter().zip(0..).map(|(unit, id)| (id, unit)).collect();
        let names: Vec<Vec<&str>> = waves(&acts)
            .iter()
            .map(|wave| wave.iter().map(|(_, unit)| unit.name.as_str()).collect())
            .collect();
        assert_eq!(names, [["a.socket"], ["fabric.service"], ["a.service"]]);
    }
}
