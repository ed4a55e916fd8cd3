//! The way back: what was stopped is started, in reverse order.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bus::{ActiveState, Follower, Job, LoadState, SystemState};
use ledger::{Act, Object, Run, Step, Unit};
use step::Context;

use crate::closure::SERVICE;
use crate::stop::shown;
use crate::{manager, transient};

/// How long the starts may take together. A unit that is ordered after the run's own target does
/// not start before this step has ended: it is left in the manager's queue.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let acts = run.outstanding(Step::StopUnits);
    if acts.is_empty() {
        return Ok(());
    }
    if bus::is_stopping()? {
        context.info("the machine is going down: the units are started by the next boot");
        return Ok(());
    }
    let mut problems = Vec::new();
    let mut users: Vec<Option<u32>> = Vec::new();
    for unit in acts.iter().filter_map(unit_of) {
        if !users.contains(&unit.user) {
            users.push(unit.user);
        }
    }
    for user in users {
        let acts: Vec<(u64, &Unit)> = acts
            .iter()
            .filter_map(|act| Some((act.id, unit_of(act)?)))
            .filter(|(_, unit)| unit.user == user)
            .collect();
        let result = match manager(user).and_then(|manager| manager.follow(&[])) {
            Ok(mut follower) => {
                let mut problems = Vec::new();
                for wave in waves(acts) {
                    problems.extend(give_back(context, &mut follower, &wave)?);
                }
                Ok(problems)
            }
            Err(error) => no_manager(context, &run, &acts, &anyhow::Error::from(error)),
        };
        problems.extend(result?);
    }
    if !problems.is_empty() {
        bail!("not every unit is back: {}", problems.join("; "));
    }
    Ok(())
}

/// What is started together, wave after wave: sockets, which cannot be started once their service
/// runs; then who serves the others; then the rest.
fn waves(acts: Vec<(u64, &Unit)>) -> [Vec<(u64, &Unit)>; 3] {
    let (sockets, others): (Vec<_>, Vec<_>) =
        acts.into_iter().partition(|(_, unit)| unit.name.ends_with(".socket"));
    let (services, rest) = others.into_iter().partition(|(_, unit)| unit.role == SERVICE);
    [sockets, services, rest]
}

fn unit_of(act: &Act) -> Option<&Unit> {
    match &act.object {
        Object::Unit(unit) => Some(unit),
        _ => None,
    }
}

/// Nobody to start the units. After a reboot that is as it should be for a user who has not logged
/// in again: his manager went with the old boot, and so did what was to be given back.
fn no_manager(
    context: &Context,
    run: &Run,
    acts: &[(u64, &Unit)],
    error: &anyhow::Error,
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (id, unit) in acts {
        let name = shown(unit.user, &unit.name);
        if unit.user.is_some() && run.boot != context.ledger.boot() {
            context
                .ledger
                .lost(*id, "the machine was restarted, and the user has no manager in this boot")?;
            context.warn(format!("{name} is not started: its user has no manager in this boot"));
        } else {
            context.ledger.undo_failed(*id, format!("{error:#}"))?;
            problems.push(format!("{name}: {error:#}"));
        }
    }
    Ok(problems)
}

/// A start that is under way.
struct Started<'a> {
    id: u64,
    unit: &'a Unit,
    job: Job,
    /// When its main process was started last before, to see whether it is a new one.
    before: Option<u64>,
}

fn give_back(context: &Context, follower: &mut Follower, acts: &[(u64, &Unit)]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut started = Vec::new();
    if acts.is_empty() {
        return Ok(problems);
    }
    context.status(format!("starting units: {}", acts.len()));
    let mut fail = |id: u64, unit: &Unit, why: String| -> Result<()> {
        context.ledger.undo_failed(id, &why)?;
        problems.push(format!("{}: {why}", shown(unit.user, &unit.name)));
        Ok(())
    };
    for (id, unit) in acts {
        match start(context, follower, unit) {
            Ok(None) => {
                context.ledger.undone(*id)?;
                transient::forget(&context.root, unit);
            }
            Ok(Some((job, before))) => started.push(Started { id: *id, unit, job, before }),
            Err(error) => fail(*id, unit, format!("{error:#}"))?,
        }
    }
    // While the machine boots, what is started may be ordered after the unit that this runs in.
    let booting = matches!(follower.manager().state(), Ok(SystemState::Starting | SystemState::Initializing));
    let deadline = if booting { Instant::now() } else { Instant::now() + PATIENCE };
    for Started { id, unit, job, before } in started {
        let name = shown(unit.user, &unit.name);
        match follower.wait(&job, deadline) {
            Ok(result) => match outcome(follower, unit, before)? {
                None => {
                    context.ledger.undone(id)?;
                    transient::forget(&context.root, unit);
                    context.info(format!("started {name}"));
                }
                Some(why) => fail(id, unit, format!("its start ended with {result}: {why}"))?,
            },
            Err(bus::Error::Deadline { .. }) => {
                let now = follower.manager().unit(&unit.name)?;
                if now.active == ActiveState::Activating && !booting {
                    fail(id, unit, format!("it is still starting after {} s", PATIENCE.as_secs()))?;
                    continue;
                }
                context.ledger.undone(id)?;
                if now.active.is_up() {
                    context.info(format!("started {name}"));
                } else {
                    // Not begun: what it waits for may be the end of this very step.
                    context.warn(format!("the start of {name} is queued: something else comes first"));
                }
            }
            Err(error) => fail(id, unit, format!("{:#}", anyhow::Error::from(error)))?,
        }
    }
    Ok(problems)
}

/// Queues the start of a unit; none if it runs already.
fn start(context: &Context, follower: &Follower, unit: &Unit) -> Result<Option<(Job, Option<u64>)>> {
    let mut now = follower.manager().unit(&unit.name)?;
    if now.load == LoadState::NotFound && transient::revive(&context.root, unit)? {
        now = follower.manager().unit(&unit.name)?;
    }
    if now.active.is_up() && now.active != ActiveState::Deactivating {
        return Ok(None);
    }
    let before = follower.manager().service(&unit.name).ok().map(|service| service.started_usec);
    Ok(Some((follower.start(&unit.name)?, before)))
}

/// Why a unit whose start has ended is not back; none if it is.
fn outcome(follower: &Follower, unit: &Unit, before: Option<u64>) -> Result<Option<String>> {
    let now = follower.manager().unit(&unit.name)?;
    if now.active.is_up() {
        return Ok(None);
    }
    if now.active == ActiveState::Failed {
        return Ok(Some(format!("it failed ({})", now.sub)));
    }
    // One that does its work and ends has run if its main process is a new one.
    let service = follower.manager().service(&unit.name).ok();
    let ran = service.is_some_and(|service| before.is_some_and(|before| service.started_usec > before));
    Ok((!ran).then(|| "it does not run; its conditions may not hold".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_comes_before_its_service() {
        let unit = |name: &str, role: &str| Unit { name: name.into(), user: None, role: role.into() };
        let units =
            [unit("a.service", "holder"), unit("a.socket", "trigger"), unit("fabric.service", SERVICE)];
        let acts: Vec<(u64, &Unit)> = units.iter().zip(0..).map(|(unit, id)| (id, unit)).collect();
        let names: Vec<Vec<&str>> = waves(acts)
            .iter()
            .map(|wave| wave.iter().map(|(_, unit)| unit.name.as_str()).collect())
            .collect();
        assert_eq!(names, [["a.socket"], ["fabric.service"], ["a.service"]]);
    }
}
