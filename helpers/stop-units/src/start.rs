// SPDX-License-Identifier: MIT
//! The undo: what was stopped is started, in reverse order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use as_user::Started;
use bus::{Manager, Up};
use ledger::{Act, Object, Step, Unit};
use step::{Context, Undo};

use crate::closure::SERVICE;
use crate::failed_services::{self, FAILED_SERVICE};
use crate::stop::shown;
use crate::{transient, users};

/// How long the starts may take together. A unit that is ordered after the run's own target does
/// not start before this step has ended: it is left in the manager's queue.
const PATIENCE: Duration = Duration::from_secs(90);

/// Starts the system's units; those of users as well, unless drain-containers has something of the
/// system's to restart: that comes first, and then it calls [`undo_users`].
pub(crate) fn undo(context: &Context) -> Result<()> {
    let Some(undo) = Undo::begin(context)? else { return Ok(()) };
    let Some((system, users)) = outstanding(&undo) else { return Ok(()) };
    restore_system(&undo, &system);
    let is_systems = |act: &Act| match &act.object {
        Object::Container(container) => container.user.is_none(),
        _ => true,
    };
    if users.is_empty() || !undo.run.outstanding(Step::DrainContainers).iter().any(is_systems) {
        restore_users(&undo, users);
    }
    undo.end(NOT_RESTORED)
}

/// Starts the units of users.
pub(crate) fn undo_users(context: &Context) -> Result<()> {
    let Some(undo) = Undo::begin(context)? else { return Ok(()) };
    let Some((_, users)) = outstanding(&undo) else { return Ok(()) };
    restore_users(&undo, users);
    undo.end(NOT_RESTORED)
}

const NOT_RESTORED: &str = "not restored";

/// An act that took a unit.
type Taken = (u64, Unit);

/// Those of each user.
type OfUsers = BTreeMap<u32, Vec<Taken>>;

/// The units to start: the system's, and those of each user. None where there are none, or where the next
/// boot starts them.
fn outstanding(undo: &Undo) -> Option<(Vec<Taken>, OfUsers)> {
    let (mut system, mut users) = (Vec::new(), OfUsers::new());
    for act in undo.run.outstanding(Step::StopUnits) {
        let Object::Unit(unit) = act.object else { continue };
        let taken = unit.user.map_or(&mut system, |uid| users.entry(uid).or_default());
        taken.push((act.id, unit));
    }
    if system.is_empty() && users.is_empty() {
        return None;
    }
    match bus::is_stopping() {
        Ok(true) => {
            undo.context.info("the machine is going down: the units are started by the next boot");
            return None;
        }
        Ok(false) => {}
        // To leave units down for want of an answer would be the greater wrong.
        Err(error) => {
            undo.context.warn(format!("cannot find out whether the machine is shutting down: {error}"))
        }
    }
    Some((system, users))
}

fn restore_system(undo: &Undo, acts: &[Taken]) {
    if acts.is_empty() {
        return;
    }
    let context = undo.context;
    context.status(format!("starting units: {}", acts.len()));
    let mut follower = match Manager::system().and_then(|manager| manager.follow(&[])) {
        Ok(follower) => follower,
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::from(error));
            return acts.iter().for_each(|taken| note(undo, taken, Err(why.clone())));
        }
    };
    let [sockets, services, rest] = waves(acts);
    let mut came_up = Vec::new();
    let services_until = Instant::now() + 2 * PATIENCE;
    let services = by_rank(services).into_iter().map(|wave| (wave, Some(services_until)));
    for (wave, until) in std::iter::once((sockets, None)).chain(services).chain([(rest, None)]) {
        // Those of one rank after the other have a time in common.
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let patience = left.map_or(PATIENCE, |left| left.min(PATIENCE));
        let names: Vec<&str> = wave.iter().map(|(_, unit)| unit.name.as_str()).collect();
        wave.iter()
            .filter(|(_, unit)| unit.role == FAILED_SERVICE)
            .for_each(|(_, unit)| failed_services::reset_failed(follower.manager(), &unit.name));
        let mut revive = |name: &str| transient::revive(&context.root, name);
        bus::start_each(&mut follower, &names, patience, &mut revive, |at, result| {
            if matches!(result, Ok(Up::Already | Up::Started)) {
                transient::forget(&context.root, names[at]);
            }
            let result = result.map(|up| match up {
                Up::Already => Started::Already,
                Up::Started => Started::Started,
                Up::Queued => Started::Queued,
            });
            match result {
                Ok(Started::Already | Started::Started) if wave[at].1.role == FAILED_SERVICE => {
                    came_up.push(wave[at]);
                }
                result => note(undo, wave[at], result),
            }
        });
    }
    for taken in came_up {
        let stays = failed_services::stays(follower.manager(), &taken.1.name);
        note(undo, taken, stays.map(|()| Started::Started));
    }
}

/// Services, NVIDIA's in the order in which they need each other.
fn by_rank(services: Vec<&Taken>) -> Vec<Vec<&Taken>> {
    let mut ranks: BTreeMap<usize, Vec<&Taken>> = BTreeMap::new();
    for taken in services {
        ranks.entry(failed_services::rank(&taken.1.name)).or_default().push(taken);
    }
    ranks.into_values().collect()
}

fn restore_users(undo: &Undo, users: OfUsers) {
    if users.is_empty() {
        return;
    }
    let context = undo.context;
    context.status(format!("starting units of users: {}", users.values().map(Vec::len).sum::<usize>()));
    let results = users::side_by_side(users.into_iter().collect(), |(uid, acts)| {
        let names = waves(&acts).map(|wave| wave.iter().map(|(_, unit)| unit.name.clone()).collect());
        let started = users::start(&context.root, uid, &names);
        (acts, started)
    });
    for (acts, started) in results {
        let taken = waves(&acts).into_iter().flatten();
        for (taken, started) in taken.zip(started.into_iter().flatten()) {
            let result = match started {
                Ok(Started::Failed(why)) => Err(why),
                started => started,
            };
            note(undo, taken, result);
        }
    }
}

/// Notes what came of a start.
fn note(undo: &Undo, (id, unit): &Taken, result: Result<Started, String>) {
    let (context, name) = (undo.context, shown(unit.user, &unit.name));
    match result {
        Ok(started) => {
            match started {
                Started::Already => {}
                Started::Queued => {
                    context.warn(format!("the start of {name} is queued: something else comes first"));
                }
                _ => context.info(format!("started {name}")),
            }
            undo.restored(*id, name);
        }
        // What ran in the user's session of another boot went with that boot.
        Err(why) if unit.user.is_some() && !undo.is_of_this_boot() => {
            context.warn(format!("{name} is not started: the machine was restarted, and {why}"));
            undo.lost(*id, name, format!("the machine was restarted, and {why}"));
        }
        Err(why) => undo.failed(*id, name, why),
    }
}

/// What is started together, wave after wave: sockets, which cannot be started once their service
/// runs; then who serves the others; then the rest.
fn waves(acts: &[Taken]) -> [Vec<&Taken>; 3] {
    let (sockets, others): (Vec<_>, Vec<_>) =
        acts.iter().partition(|(_, unit)| unit.name.ends_with(".socket"));
    let (services, rest) =
        others.into_iter().partition(|(_, unit)| unit.role == SERVICE || unit.role == FAILED_SERVICE);
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
