//! `undo`: what the ledger says was stopped is started.
//!
//! Over the ledger only: no configuration, and no search for containers that might be meant.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use engines::{Client, Ended, Error, Kind, Member, Way};
use ledger::{Act, Container, Object, Run, Step};
use step::Context;

use crate::{again, cdi, podman, pods};

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

/// A container and the act that took it.
struct Taken {
    act: u64,
    container: Container,
}

pub(crate) fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let mut acts = run.outstanding(Step::DrainContainers);
    let is_users = |act: &Act| matches!(&act.object, Object::Unit(unit) if unit.user.is_some());
    // Those that stop-units leaves until the system's own are restarted.
    let units_of_users =
        run.outstanding(Step::StopUnits).iter().any(is_users) && acts.iter_mut().any(|act| !is_a_users(act));
    if acts.is_empty() {
        return Ok(());
    }
    // Oldest first, as they were created.
    acts.reverse();
    match step::system_is_stopping() {
        Ok(true) => {
            context.info(format!(
                "the system is going down: {} containers are left to the next boot",
                acts.len()
            ));
            return Ok(());
        }
        Ok(false) => {}
        // To leave containers down for want of an answer would be the greater wrong.
        Err(error) => context.warn(format!("cannot tell whether the system is going down: {error:#}")),
    }
    let mut failed = Vec::new();
    // The toolkit asks NVML, which may hang: what needs no specification does not wait for it.
    if acts.iter().any(|act| matches!(act.object, Object::Cdi { .. })) {
        let first: Vec<Act> = acts.extract_if(.., |act| is_before_cdi(act)).collect();
        context.status(format!("starting containers that need no CDI specification: {}", first.len()));
        failed.extend(finish(context, &by_engine(first), &majors(&run), run.snapshot.parallel));
    }
    // Before the other containers, which are given their devices by them.
    for act in acts.extract_if(.., |act| matches!(act.object, Object::Cdi { .. })) {
        if let Err(error) = cdi::refresh(context, &run) {
            context.warn(format!("the CDI specifications are as they were: {error:#}"));
        }
        failed.extend(context.ledger.undone(act.id).err().map(|error| format!("{}: {error:#}", act.object)));
    }
    // The system's own, then each user's.
    let users: Vec<Act> = acts.extract_if(.., is_a_users).collect();
    failed.extend(restore_system(context, &run, acts));
    if units_of_users {
        failed.extend(step::restore_units_of_users().err());
    }
    if !users.is_empty() {
        context.status(format!("starting containers of users: {}", users.len()));
        failed.extend(finish(context, &by_engine(users), &majors(&run), run.snapshot.parallel));
    }
    if !failed.is_empty() {
        bail!("not everything is back: {}", failed.join("; "));
    }
    Ok(())
}

fn is_a_users(act: &mut Act) -> bool {
    matches!(&act.object, Object::Container(container) if container.user.is_some())
}

fn is_before_cdi(act: &Act) -> bool {
    matches!(&act.object, Object::Container(container) if container.before_cdi && container.user.is_none())
}

/// What was the system's: the kubelet and its pods, the containers of Docker and of root's Podman.
fn restore_system(context: &Context, run: &Run, mut acts: Vec<Act>) -> Vec<String> {
    if acts.is_empty() {
        return Vec::new();
    }
    // The kubelet comes up, and starts its own, while the others are started.
    let no_kubelet = pods::start_kubelets(context, run, &mut acts).err();
    let of_pods = pods::of_pods(&mut acts);
    context.status(format!("starting containers: {}", acts.len()));
    let engines = by_engine(acts);
    // Listens until everything is back.
    let podman = podman::offer(context, &podmans(&engines));
    let mut failed = finish(context, &engines, &majors(run), run.snapshot.parallel);
    drop(podman);
    match no_kubelet {
        None => {
            failed.extend(pods::await_back(context, run, of_pods).err().map(|error| format!("{error:#}")))
        }
        Some(error) => {
            for (act, container) in of_pods {
                let noted = context.ledger.undo_failed(act, "the kubelet did not start");
                failed.extend(noted.err().map(|error| format!("{}: {error:#}", container.name)));
            }
            failed.push(format!("{error:#}"));
        }
    }
    failed
}

/// Whose Podmans the containers are of.
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

/// Restarts them, engine by engine, side by side; returns what went wrong.
fn finish(context: &Context, engines: &ByEngine, majors: &Majors, parallel: usize) -> Vec<String> {
    let work = engines::side_by_side(
        engines,
        ENGINES,
        async |((engine, socket), taken): (&(String, String), &Vec<Taken>)| {
            give_back(context, (engine, socket), taken, majors, parallel).await
        },
    );
    match engines::wait_for(work) {
        Ok(failed) => failed.concat(),
        Err(error) => vec![format!("nothing could be started: {error}")],
    }
}

/// Gives back the containers of one engine; returns what went wrong, container by container.
async fn give_back(
    context: &Context,
    (engine, socket): (&str, &str),
    taken: &[Taken],
    majors: &Majors,
    parallel: usize,
) -> Vec<String> {
    let user = taken.first().and_then(|one| one.container.user);
    let client = match (Kind::from_name(engine), user) {
        (Some(_), Some(uid)) => Client::of_user(&context.root, uid, USER).await,
        (Some(kind), None) => Client::await_reach(&context.root, kind, socket, PATIENCE).await,
        (None, _) => Err(Error::Odd(format!("this version knows no engine {engine}"))),
    };
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            let reason = error.to_string();
            return taken.iter().filter_map(|one| fail(context, one, &reason).err()).collect();
        }
    };
    let failed = start_all(context, &client, taken, majors, parallel).await;
    client.end().await;
    failed
}

async fn start_all(
    context: &Context,
    client: &Client,
    taken: &[Taken],
    majors: &Majors,
    parallel: usize,
) -> Vec<String> {
    let members = engines::side_by_side(taken, parallel, async |one: &Taken| member(client, one).await).await;
    let mut failed = Vec::new();
    for wave in engines::waves(&members, Way::Up) {
        let results = engines::side_by_side(wave, parallel, async |index: usize| {
            start(context, client, &taken[index], majors).await
        });
        failed.extend(results.await.into_iter().filter_map(Result::err));
    }
    for _ in 0..DEATHS {
        if !client.was_away() {
            break;
        }
        let results = engines::side_by_side(taken, parallel, async |one: &Taken| {
            start_again(context, client, one).await
        });
        failed.extend(results.await.into_iter().filter_map(Result::err));
    }
    failed
}

/// An engine that dies takes down what it had started (Docker without live-restore): what was given
/// back before its death is looked at once more.
async fn start_again(context: &Context, client: &Client, taken: &Taken) -> Result<(), String> {
    match again::bring_up(context, client, &taken.container).await {
        Ok(Ended::Brought) => {
            let name = Object::Container(taken.container.clone());
            context.info(format!("{name} went down with its engine, and runs again"));
            Ok(())
        }
        Ok(_) => Ok(()),
        // Noted as not given back, and so tried again in the unwinding.
        Err(error) => fail(context, taken, &error.to_string()),
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

async fn start(context: &Context, client: &Client, taken: &Taken, majors: &Majors) -> Result<(), String> {
    let Taken { act, container } = taken;
    let name = Object::Container(container.clone());
    let ended = match again::bring_up(context, client, container).await {
        Ok(ended) => ended,
        Err(error) => return fail(context, taken, &error.to_string()),
    };
    let paused = if container.paused { ", paused as before" } else { "" };
    let noted = match ended {
        Ended::Brought => match leads_nowhere(context, client, container, majors) {
            None => {
                context.info(format!("{name} runs again{paused}"));
                context.ledger.undone(*act)
            }
            Some(why) => {
                let reason = format!("runs again, with nodes of the driver of before: {why}; make it anew");
                context.warn(format!("{name} {reason}"));
                context.ledger.lost(*act, reason)
            }
        },
        // Its restart policy, its user, or a try before this one.
        Ended::Already => {
            context.info(format!("{name} runs already{paused}"));
            context.ledger.undone(*act)
        }
        Ended::Finished => {
            context.warn(format!("{name} was started and its work was done at once, with exit status 0"));
            context.ledger.undone(*act)
        }
        Ended::Gone => {
            let reason = "was removed while it was stopped: nothing is left to start";
            context.warn(format!("{name} {reason}"));
            context.ledger.lost(*act, reason)
        }
    };
    noted.map_err(|error| format!("{name}: {error:#}"))?;
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
    // One that was made anew has another id and the same name.
    let id = if container.definition.is_some() { &container.name } else { &container.id };
    match engines::become_healthy(client, id, Duration::from_secs(seconds)).await {
        Ok(None) => context.info(format!("{name} is healthy")),
        Ok(Some(says)) => context.warn(format!("{name} runs again, and its health check says {says}")),
        Err(error) => context.warn(format!("whether {name} is healthy is not known: {error}")),
    }
}

/// What of a container that was started leads to the driver of before.
fn leads_nowhere(
    context: &Context,
    client: &Client,
    container: &Container,
    majors: &Majors,
) -> Option<String> {
    match engines::stale(&context.root, client.kind(), &container.id, majors) {
        Ok(stale) => (!stale.is_empty()).then(|| stale.join("; ")),
        Err(error) => {
            context.warn(format!("cannot tell whether its devices are right: {error}"));
            None
        }
    }
}

/// Notes that a container is not back, and says so.
fn fail(context: &Context, taken: &Taken, reason: &str) -> Result<(), String> {
    let name = Object::Container(taken.container.clone());
    match context.ledger.undo_failed(taken.act, reason) {
        Ok(()) => Err(format!("{name}: {reason}")),
        Err(error) => Err(format!("{name}: {reason}; and the ledger does not have this: {error:#}")),
    }
}
