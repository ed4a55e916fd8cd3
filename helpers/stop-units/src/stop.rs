// SPDX-License-Identifier: MIT
//! The stop: everything in the ledger, then all at once, then the state read back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use as_user::{Stopped, is_unit_name};
use bus::{Manager, NotDown};
use holders::{Guarded, drain_command};
use ledger::{Intent, Object, Step, Unit};
use step::{Context, Guard, is_slurmd};

use crate::closure::{Planned, Role, closure};
use crate::{UnitKey, sessions, transient, users, wanted};

/// How often holders are looked for again: a unit may be started by something unknown while
/// others stop, but not again and again.
const ROUNDS: u32 = 3;

/// How long the units of a user get to stop, whatever the system's have taken of the time.
const LEAST: Duration = Duration::from_secs(20);

/// The longest that a user's own word on its units counts: what systemd's default of 90 s comes to.
const MOST: Duration = Duration::from_secs(2 * 90 + 10);

pub(crate) fn run(context: &Context) -> Result<()> {
    let config = context.config()?;
    let protected = Guard::read(&context.root, &config.units.protect)?;
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    let limit = Instant::now() + Duration::from_secs(config.units.stop_timeout);
    let mut tried: BTreeSet<UnitKey> = BTreeSet::new();
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
        // Everything of the system is planned before anything is stopped: a refusal leaves no trace.
        let (system, users) = by_manager(&wanted);
        if !system.is_empty() {
            let manager = Manager::system()?;
            let plan = closure(&manager, &system, Guarded { user: None, units: &protected })?;
            protect_jobs(context, &plan)?;
            tried.extend(plan.iter().map(|planned| (None, planned.name.clone())));
            stopped += plan.iter().filter(|planned| planned.up).count();
            stop(context, &manager, &plan, limit)?;
        }
        let left = limit.saturating_duration_since(Instant::now()).clamp(LEAST, MOST);
        for (uid, names) in stop_users(context, users, &protected, left)? {
            stopped += names.len();
            tried.extend(names.into_iter().map(|name| (Some(uid), name)));
        }
        tried.extend(wanted.into_keys());
    }
    if stopped == 0 {
        context.info("no unit holds the GPU");
    }
    sessions::release(context, &config, &scope)?;
    Ok(())
}

/// Slurm's daemon is stopped only where no job is that it is in charge of: one may have begun since the plan.
fn protect_jobs(context: &Context, plan: &[Planned]) -> Result<()> {
    let Some(slurmd) = plan.iter().find(|planned| planned.up && is_slurmd(&planned.name)) else {
        return Ok(());
    };
    if let Some((job, _)) = holders::slurm(&context.root)?.and_then(|slurm| slurm.jobs.into_iter().next()) {
        bail!(
            "{} is not stopped: Slurm job {job} was started meanwhile; drain the node first: {}",
            slurmd.name,
            drain_command(None)
        );
    }
    Ok(())
}

/// Units by name, and why each is stopped.
type Named = Vec<(String, Role)>;

/// The units of the system's manager, and those of each user's.
pub(crate) fn by_manager(units: &BTreeMap<UnitKey, Role>) -> (Named, BTreeMap<u32, Named>) {
    let (mut system, mut users) = (Named::new(), BTreeMap::<u32, Named>::new());
    for ((user, name), role) in units {
        let named = user.map_or(&mut system, |uid| users.entry(uid).or_default());
        named.push((name.clone(), *role));
    }
    (system, users)
}

fn stop(context: &Context, manager: &Manager, plan: &[Planned], limit: Instant) -> Result<()> {
    let mut acts = Vec::new();
    let begun = Instant::now();
    for planned in plan {
        if planned.up {
            transient::save(&context.root, &planned.name, &planned.fragment)?;
        }
        let act = intent(context, None, &planned.name, planned.role)?;
        if planned.up {
            acts.push((act, planned));
        } else {
            // The record shows the next step that what is left of it has no owner.
            act.failed("it did not run")?;
        }
    }
    let names: Vec<&str> = acts.iter().map(|(_, planned)| planned.name.as_str()).collect();
    context.status(format!("stopping {}", names.join(", ")));
    let mut follower = manager.follow(&[])?;
    let orders: Vec<(&str, bool)> =
        acts.iter().map(|(_, planned)| (planned.name.as_str(), planned.role == Role::Dependent)).collect();
    let mut problems = Vec::new();
    bus::stop_each(&mut follower, &orders, limit, |at, result| {
        let (act, planned) = acts[at];
        let noted = match result {
            Ok(()) => {
                context.info(format!("stopped {}", planned.name));
                act.done()
            }
            Err(NotDown::Refused(why)) => {
                problems.push(format!("{} is not stopped: {why}", planned.name));
                act.failed(why)
            }
            // The act stays open: its stop may still go on, and then it has to be restored.
            Err(NotDown::Up(state)) => {
                let seconds = begun.elapsed().as_secs();
                problems.push(format!("{} is not stopped after {seconds} s: it is {state}", planned.name));
                act.leave_open();
                Ok(())
            }
        };
        problems.extend(noted.err().map(|error| format!("{}: {error:#}", planned.name)));
    });
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(())
}

fn intent<'a>(context: &'a Context, user: Option<u32>, name: &str, role: Role) -> Result<Intent<'a>> {
    let unit = Unit { name: name.to_owned(), user, role: role.word().into() };
    context.ledger.intent(Step::StopUnits, Object::Unit(unit))
}

/// Stops the units of users, each user's by that user's own manager, and returns those that were dealt
/// with. What a user's manager does not stop is left to the next step, which kills the holders: the act
/// stays open, and the unit is started again if its manager does that, or named as not restored.
///
/// # Errors
/// The ledger cannot be written.
fn stop_users(
    context: &Context,
    users: BTreeMap<u32, Named>,
    protected: &[Guard],
    time: Duration,
) -> Result<BTreeMap<u32, Vec<String>>> {
    let plans = users::side_by_side(users.into_iter().collect(), |(uid, names)| {
        let (good, bad): (Named, Named) = names.into_iter().partition(|(name, _)| is_unit_name(name));
        let plan =
            (!good.is_empty()).then(|| users::plan(&context.root, uid, &good, protected, users::PLAN + time));
        (uid, good, bad, plan)
    });
    let mut all = BTreeMap::<u32, Vec<String>>::new();
    let mut orders = Vec::new();
    for (uid, good, bad, plan) in plans {
        let names = all.entry(uid).or_default();
        for (name, role) in bad {
            intent(context, Some(uid), &name, role)?.lost("that is no name of a unit")?;
            names.push(name);
        }
        let (manager, plan) = match plan {
            None => continue,
            Some(Ok(plan)) => plan,
            Some(Err(error)) => {
                context.warn(format!(
                    "the units of user {uid} cannot be stopped, their holders are killed: {error:#}"
                ));
                for (name, role) in good {
                    intent(context, Some(uid), &name, role)?.leave_open();
                    names.push(name);
                }
                continue;
            }
        };
        let mut acts = Vec::new();
        for planned in plan {
            names.push(planned.name.clone());
            let act = intent(context, Some(uid), &planned.name, planned.role)?;
            match planned.up {
                true => acts.push((act, planned)),
                false => act.failed("it did not run")?,
            }
        }
        orders.push((uid, manager, acts));
    }
    let results = users::side_by_side(orders, |(uid, manager, acts)| {
        let plan: Vec<&Planned> = acts.iter().map(|(_, planned)| planned).collect();
        (uid, users::stop(&manager, &plan, time), acts)
    });
    for (uid, result, acts) in results {
        let stopped = match result {
            Ok(stopped) => stopped,
            Err(error) => {
                context.warn(format!(
                    "the units of user {uid} are not stopped, their holders are killed: {error:#}"
                ));
                continue;
            }
        };
        for ((act, planned), stopped) in acts.into_iter().zip(stopped) {
            let name = shown(Some(uid), &planned.name);
            match stopped {
                Stopped::Down => {
                    act.done()?;
                    context.info(format!("stopped {name}"));
                }
                Stopped::Refused(why) | Stopped::Up(why) => {
                    act.leave_open();
                    context.warn(format!("{name} is not stopped, its holders are killed: {why}"));
                }
            }
        }
    }
    Ok(all)
}

/// A unit for messages.
pub(crate) fn shown(user: Option<u32>, name: &str) -> String {
    user.map_or_else(|| name.to_owned(), |uid| format!("{name} of user {uid}"))
}
