// SPDX-License-Identifier: MIT
//! `undo`: what the ledger says was stopped is started.
//!
//! Over the ledger only: no configuration, and no search for containers that might be meant.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use engines::{Client, Direction, Ended, Error, Kind, Member};
use ledger::{Act, Container, Object, Run, Step};
use step::{Context, Undo};

use crate::taken::Taken;
use crate::{again, cdi, podman, pods, stale_hook};

/// How long an engine may be away, as it is while its daemon starts again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a user's side may take to start that user's containers, all in all.
const USER: Duration = Duration::from_secs(60);

/// The longest that a health check in a user's container is waited for: others of that user come after it.
const USERS_HEALTH: u64 = 15;

/// How many engines are asked at once: each user may have one.
const ENGINES: usize = 64;

/// How often an engine may die over the starts.
const DEATHS: u32 = 3;

pub(crate) fn undo(context: &Context) -> Result<()> {
    let Some(undo) = Undo::begin(context)? else { return Ok(()) };
    let mut acts = undo.run.outstanding(Step::DrainContainers);
    let is_users = |act: &Act| matches!(&act.object, Object::Unit(unit) if unit.user.is_some());
    // Those that stop-units leaves until the system's own are restarted.
    let units_of_users = undo.run.outstanding(Step::StopUnits).iter().any(is_users)
        && acts.iter_mut().any(|act| !is_a_users(act));
    if acts.is_empty() {
        return Ok(());
    }
    // Oldest first, as they were created.
    acts.reverse();
    match step::undo_is_too_late(context) {
        Ok(true) => {
            context.info(format!(
                "the system is going down: {} containers are left to the next boot",
                acts.len()
            ));
            return Ok(());
        }
        Ok(false) => {}
        // To leave containers down for want of an answer would be the greater wrong.
        Err(error) => context.warn(format!("cannot find out whether the system is shutting down: {error:#}")),
    }
    // The toolkit asks NVML, which may hang: what needs no specification does not wait for it.
    if acts.iter().any(|act| matches!(act.object, Object::Cdi { .. })) {
        let first: Vec<Act> = acts.extract_if(.., |act| is_before_cdi(act)).collect();
        context.status(format!("starting containers that need no CDI specification: {}", first.len()));
        finish(&undo, &by_engine(first));
    }
    // Before the other containers, which are given their devices by them.
    for act in acts.extract_if(.., |act| matches!(act.object, Object::Cdi { .. })) {
        if let Err(error) = cdi::refresh(&undo) {
            context.warn(format!("the CDI specifications are as they were: {error:#}"));
        }
        undo.restored(act.id, &act.object);
    }
    // The system's own, then each user's.
    let users: Vec<Act> = acts.extract_if(.., is_a_users).collect();
    restore_system(&undo, acts);
    if units_of_users && let Err(error) = step::restore_units_of_users() {
        undo.problem(error);
    }
    if !users.is_empty() {
        context.status(format!("starting containers of users: {}", users.len()));
        finish(&undo, &by_engine(users));
    }
    undo.end("not restored")
}

fn is_a_users(act: &mut Act) -> bool {
    matches!(&act.object, Object::Container(container) if container.user.is_some())
}

fn is_before_cdi(act: &Act) -> bool {
    matches!(&act.object, Object::Container(container) if container.before_cdi && container.user.is_none())
}

/// What was the system's: the kubelet and its pods, the containers of Docker and of root's Podman.
fn restore_system(undo: &Undo, mut acts: Vec<Act>) {
    if acts.is_empty() {
        return;
    }
    let context = undo.context;
    // The kubelet comes up, and starts its own, while the others are started.
    let kubelets_start = pods::start_kubelets(undo, &mut acts);
    let of_pods = pods::of_pods(&mut acts);
    context.status(format!("starting containers: {}", acts.len()));
    let engines = by_engine(acts);
    // Listens until everything is restored.
    let podman = podman::offer(context, &podmans(&engines));
    finish(undo, &engines);
    drop(podman);
    if kubelets_start {
        return pods::await_back(undo, of_pods);
    }
    for (act, container) in of_pods {
        undo.also_failed(act, container.name, "the kubelet did not start");
    }
}

/// The users of the Podmans that have the containers.
fn podmans(engines: &ByEngine) -> BTreeSet<Option<u32>> {
    let podman = engines.iter().filter(|((engine, _), _)| engine == Kind::Podman.name());
    podman.flat_map(|(_, taken)| taken.iter().map(|one| one.container.user)).collect()
}

type Majors = Vec<(String, u32)>;
type ByEngine = BTreeMap<(String, String), Vec<Taken>>;

fn by_engine(acts: Vec<Act>) -> ByEngine {
    let mut engines = ByEngine::new();
    for act in acts {
        if let Object::Container(container) = act.object {
            let key = (container.engine.clone(), container.socket.clone());
            engines.entry(key).or_default().push(Taken { act: act.id, container });
        }
    }
    engines
}

/// The driver's major numbers when the run began.
fn majors(run: &Run) -> Majors {
    let mut majors: Majors = run.snapshot.nodes.iter().map(|node| (node.class.clone(), node.major)).collect();
    majors.sort();
    majors.dedup();
    majors
}

/// Restarts them, engine by engine, side by side.
fn finish(undo: &Undo, engines: &ByEngine) {
    let work = engines::side_by_side(
        engines,
        ENGINES,
        async |((engine, socket), taken): (&(String, String), &Vec<Taken>)| {
            restore_engine(undo, (engine, socket), taken).await;
        },
    );
    if let Err(error) = engines::wait_for(work) {
        undo.problem(format!("nothing could be started: {error}"));
    }
}

/// Restarts the containers of one engine.
async fn restore_engine(undo: &Undo<'_>, (engine, socket): (&str, &str), taken: &[Taken]) {
    let root = &undo.context.root;
    let user = taken.first().and_then(|one| one.container.user);
    let client = match (Kind::from_name(engine), user) {
        (Some(_), Some(uid)) => Client::of_user(root, uid, USER).await,
        (Some(kind), None) => Client::await_reach(root, kind, socket, PATIENCE).await,
        (None, _) => Err(Error::Odd(format!("this version knows no engine {engine}"))),
    };
    match client {
        Ok(client) => {
            start_all(undo, &client, socket, taken).await;
            client.end().await;
        }
        Err(error) => taken.iter().for_each(|one| fail(undo, one, &error)),
    }
}

async fn start_all(undo: &Undo<'_>, client: &Client, socket: &str, taken: &[Taken]) {
    let (parallel, majors) = (undo.run.snapshot.parallel, majors(&undo.run));
    let members = engines::side_by_side(taken, parallel, async |one: &Taken| member(client, one).await).await;
    let mut refused: Vec<(&Taken, Error)> = Vec::new();
    for wave in engines::waves(&members, Direction::Up) {
        let started = engines::side_by_side(wave, parallel, async |index: usize| {
            (&taken[index], start(undo, client, &taken[index], &majors).await)
        });
        refused.extend(started.await.into_iter().filter_map(|(one, result)| Some((one, result.err()?))));
    }
    if stale_hook::renew(undo, client, socket, &refused).await {
        let (again, others): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|(_, error)| matches!(error, Error::Refused { .. }));
        let started = engines::side_by_side(again, parallel, async |(one, _): (&Taken, Error)| {
            (one, start(undo, client, one, &majors).await)
        });
        refused = others;
        refused.extend(started.await.into_iter().filter_map(|(one, result)| Some((one, result.err()?))));
    }
    refused.iter().for_each(|(one, error)| fail(undo, one, error));
    for _ in 0..DEATHS {
        if !client.was_away() {
            break;
        }
        engines::side_by_side(taken, parallel, async |one: &Taken| start_again(undo, client, one).await)
            .await;
    }
}

/// An engine that dies takes down what it had started (Docker without live-restore): what was
/// restarted before its death is looked at once more.
async fn start_again(undo: &Undo<'_>, client: &Client, taken: &Taken) {
    match again::bring_up(undo.context, client, &taken.container).await {
        Ok(Ended::Brought) => {
            let name = Object::Container(taken.container.clone());
            undo.context.info(format!("{name} went down with its engine, and runs again"));
        }
        Ok(_) => {}
        // Noted as not restarted, and so tried again when the steps are undone.
        Err(error) => fail(undo, taken, &error),
    }
}

/// What it needs to be started, as far as its engine tells: the order is a help, and whether it
/// starts shows when it is started.
async fn member(client: &Client, taken: &Taken) -> Member {
    match client.inspect(&taken.container.id).await {
        Ok(container) => Member { aliases: container.aliases(), needs: container.needs() },
        Err(_) => Member { aliases: vec![taken.container.id.clone()], needs: Vec::new() },
    }
}

/// Starts one, and notes what came of it.
///
/// # Errors
/// It does not run; that is not noted.
async fn start(undo: &Undo<'_>, client: &Client, taken: &Taken, majors: &Majors) -> Result<(), Error> {
    let context = undo.context;
    let Taken { act, container } = taken;
    let name = Object::Container(container.clone());
    let ended = again::bring_up(context, client, container).await?;
    let paused = if container.paused { ", paused as before" } else { "" };
    match ended {
        Ended::Brought => match leads_nowhere(context, client, container, majors) {
            None => {
                context.info(format!("{name} runs again{paused}"));
                undo.restored(*act, name);
            }
            Some(why) => {
                let reason =
                    format!("runs again, with device nodes of the previous driver: {why}; recreate it");
                context.warn(format!("{name} {reason}"));
                undo.lost(*act, name, reason);
            }
        },
        // Its restart policy, its user, or a try before this one.
        Ended::Already => {
            context.info(format!("{name} runs already{paused}"));
            undo.restored(*act, name);
        }
        Ended::Finished => {
            context.warn(format!("{name} was started and its work was done at once, with exit status 0"));
            undo.restored(*act, name);
        }
        Ended::Gone => {
            let reason = "was removed while it was stopped: nothing is left to start";
            context.warn(format!("{name} {reason}"));
            undo.lost(*act, name, reason);
        }
    }
    if matches!(ended, Ended::Brought | Ended::Already)
        && let Some(seconds) = container.health_timeout
    {
        let seconds = if container.user.is_some() { seconds.min(USERS_HEALTH) } else { seconds };
        await_health(context, client, container, seconds).await;
    }
    Ok(())
}

/// It is back whatever its check says: that is for a person to know, and for those that depend on it to
/// come after.
async fn await_health(context: &Context, client: &Client, container: &Container, seconds: u64) {
    let name = Object::Container(container.clone());
    // One that was recreated has another id and the same name.
    let id = if container.definition.is_some() { &container.name } else { &container.id };
    match engines::become_healthy(client, id, Duration::from_secs(seconds)).await {
        Ok(None) => context.info(format!("{name} is healthy")),
        Ok(Some(says)) => context.warn(format!("{name} runs again; its health check: {says}")),
        Err(error) => context.warn(format!("whether {name} is healthy is not known: {error}")),
    }
}

/// What of a container that was started leads to the previous driver.
fn leads_nowhere(
    context: &Context,
    client: &Client,
    container: &Container,
    majors: &Majors,
) -> Option<String> {
    match engines::stale(&context.root, client.kind(), &container.id, majors) {
        Ok(stale) => (!stale.is_empty()).then(|| stale.join("; ")),
        Err(error) => {
            context.warn(format!("cannot check its devices: {error}"));
            None
        }
    }
}

/// A container is not restarted.
fn fail(undo: &Undo, taken: &Taken, why: &Error) {
    undo.failed(taken.act, Object::Container(taken.container.clone()), why);
}
