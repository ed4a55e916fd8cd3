//! The stop: everything in the ledger, then all at once, then the state read back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bus::Manager;
use holders::Guarded;
use ledger::{Object, Step, Unit};
use step::{Context, Guard};

use crate::closure::{Planned, Role, closure};
use crate::{Whose, manager, patience, transient, wanted};

/// How often holders are looked for again: a unit may be started by something unknown while
/// others stop, but not again and again.
const ROUNDS: u32 = 3;

pub(crate) fn run(context: &Context) -> Result<()> {
    let config = context.config()?;
    let protected = Guard::read(&context.root, &config.units.protect)?;
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    let limit = Instant::now() + Duration::from_secs(config.units.stop_timeout);
    let mut tried: BTreeSet<Whose> = BTreeSet::new();
    let scope = run.snapshot.chosen_nodes().collect();
    let mut stopped = 0;
    for round in 0..ROUNDS {
        let mut wanted = wanted::of_holders(context, &config, &scope)?;
        if round == 0 {
            let ours = run.snapshot.container_units.iter().map(|unit| (None, unit));
            let users = run.snapshot.user_container_units.iter().map(|(uid, unit)| (Some(*uid), unit));
            for (user, unit) in ours.chain(users) {
                wanted.entry((user, unit.clone())).or_insert(Role::Holder);
            }
        }
        wanted.retain(|unit, _| !tried.contains(unit));
        if wanted.is_empty() {
            break;
        }
        // Everything is planned before anything is stopped: a refusal leaves no trace.
        let mut plans = Vec::new();
        for (user, names) in by_manager(&wanted) {
            let manager = manager(user)?;
            let plan = closure(&manager, &names, Guarded { user, units: &protected })?;
            plans.push((user, manager, plan));
        }
        for (user, manager, plan) in plans {
            tried.extend(plan.iter().map(|planned| (user, planned.name.clone())));
            stopped += plan.iter().filter(|planned| planned.up).count();
            stop(context, user, manager, &plan, limit)?;
        }
        tried.extend(wanted.into_keys());
    }
    if stopped == 0 {
        context.info("no unit holds the GPU");
    }
    Ok(())
}

/// The units of each manager, the system's first.
pub(crate) fn by_manager(units: &BTreeMap<Whose, Role>) -> BTreeMap<Option<u32>, Vec<(String, Role)>> {
    let mut managers: BTreeMap<Option<u32>, Vec<(String, Role)>> = BTreeMap::new();
    for ((user, name), role) in units {
        managers.entry(*user).or_default().push((name.clone(), *role));
    }
    managers
}

fn stop(
    context: &Context,
    user: Option<u32>,
    manager: Manager,
    plan: &[Planned],
    limit: Instant,
) -> Result<()> {
    let mut acts = Vec::new();
    let begun = Instant::now();
    for planned in plan {
        let unit = Unit { name: planned.name.clone(), user, role: planned.role.word().into() };
        if planned.up {
            transient::keep(&context.root, user, &planned.name, &planned.fragment)?;
        }
        let id = context.ledger.intent(Step::StopUnits, Object::Unit(unit))?;
        if planned.up {
            acts.push((id, planned));
        } else {
            // The record tells the next step that what is left of it is nobody's.
            context.ledger.failed(id, "it did not run")?;
        }
    }
    let names: Vec<&str> = acts.iter().map(|(_, planned)| planned.name.as_str()).collect();
    context.status(format!("stopping {}", names.join(", ")));
    let mut follower = manager.follow(&[])?;
    let mut jobs = Vec::new();
    let (mut problems, mut refused) = (Vec::new(), Vec::new());
    for (id, planned) in &acts {
        match follower.stop(&planned.name) {
            Ok(job) => {
                // One that is gone by now has none any more.
                let own = follower.manager().stop_timeout(&planned.name).unwrap_or(patience::DEFAULT);
                jobs.push((job, patience::longest(own, user)));
            }
            // Gone by itself meanwhile.
            Err(bus::Error::NoSuchUnit { .. }) => {}
            // One that must not be stopped by hand still goes along with another.
            Err(bus::Error::Refused { .. }) if planned.role == Role::Dependent => {}
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                context.ledger.failed(*id, &error)?;
                refused.push(*id);
                problems.push(error);
            }
        }
    }
    // One may wait for another that has to stop first: its time begins then.
    let longest: Vec<Duration> = jobs.iter().map(|(_, longest)| *longest).collect();
    for (at, (job, _)) in jobs.iter().enumerate() {
        let deadline = patience::until(Instant::now(), limit, &longest[at..]);
        match follower.wait(job, deadline) {
            // What counts is the state that is read back.
            Ok(_) => {}
            Err(bus::Error::Deadline { .. }) => break,
            Err(error) => return Err(error).with_context(|| format!("wait for {} to stop", job.unit)),
        }
    }
    for (id, planned) in &acts {
        let unit = follower.manager().unit(&planned.name)?;
        if !unit.active.is_up() {
            context.ledger.done(*id)?;
            context.info(format!("stopped {}", shown(user, &planned.name)));
        } else if !refused.contains(id) {
            // The act stays open: its stop may still go on, and then it has to be given back.
            problems.push(format!(
                "{} is not stopped after {} s: it is {} ({})",
                shown(user, &planned.name),
                begun.elapsed().as_secs(),
                unit.active,
                unit.sub
            ));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(())
}

/// A unit for messages.
pub(crate) fn shown(user: Option<u32>, name: &str) -> String {
    user.map_or_else(|| name.to_owned(), |uid| format!("{name} of user {uid}"))
}
