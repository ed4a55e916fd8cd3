// SPDX-License-Identifier: MIT
//! `run`: the containers are stopped.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use engines::{Client, Container, Direction, Ended, Member, Presence, Running};
use ledger::{Intent, Object, Step};
use step::{AutoRemove, Containers, Context, Stop};

use crate::policy::{self, Sorted, grace};
use crate::{cdi, ended, podman, pods, survey, unreachable};

/// How long a user's side gets for the stops, beside the longest stop timeout; and how many users at once.
const USER: Duration = Duration::from_secs(45);
const USERS: usize = 64;

/// Where it is, nothing uses the GPUs any more: systemd skips stop-units and kill-holders.
const NO_HOLDERS: &str = "/run/nvidia-reload/no-holders";

pub(crate) fn run(context: &Context) -> Result<()> {
    let no_holders = context.root.path(NO_HOLDERS);
    files::remove(&no_holders).with_context(|| format!("remove {}", no_holders.display()))?;
    drain(context)?;
    if is_done(context)? {
        files::replace(&no_holders, 0o600, b"").with_context(|| format!("write {}", no_holders.display()))?;
    }
    Ok(())
}

/// Whether nothing is left for the next steps: nothing uses the GPUs, and no unit has to stop for its containers.
fn is_done(context: &Context) -> Result<bool> {
    let Some(run) = context.ledger.read()? else { return Ok(false) };
    let run = run.snapshot;
    // A machine that is held has the time to get holders: there, each step looks for itself.
    let is_plain = run.hold == Some(false) && run.chosen.is_empty();
    let is_free_of_units = run.container_units.is_empty() && run.user_container_units.is_empty();
    Ok(is_plain && is_free_of_units && holders::scan(&context.root)?.is_free())
}

fn drain(context: &Context) -> Result<()> {
    let whole = context.config()?;
    let config = &whole.containers;
    context.status("looking for containers that have a GPU");
    let podman = podman::offer(context, &Running::look(&context.root)?.podmans());
    let run = context.ledger.read()?;
    let scope = run.iter().flat_map(|run| run.snapshot.chosen_nodes()).collect();
    let survey = survey(context, &scope, config.parallel)?;
    for engine in &survey.engines {
        if let Presence::Absent { reason } = &engine.presence {
            context.info(format!("{engine} has nothing to stop: {reason}"));
        }
    }
    for (engine, reason) in unreachable(&survey) {
        // What of its containers holds a GPU is stopped with the other holders, or refused there.
        context.warn(format!("{engine} cannot be asked: {reason}"));
    }
    for unclear in &survey.unclear {
        context.warn(unclear);
    }
    // First of all: also where the run ends here, they are started again.
    if let Some(run) = &run {
        engines::wait_for(ended::note(context, run, &survey))??;
    }
    let Sorted { ours, pods, of_units, plain, refusals } = policy::sort(survey.containers, &whole);
    if !refusals.is_empty() {
        return Err(Stop::Refused(refusals).into());
    }
    for (container, unit) in of_units {
        context.info(format!("{container} is left to its unit {unit}"));
    }
    for container in plain {
        context.info(format!(
            "{container} was started with --rm by its user: its processes that hold the GPU are killed like that user's other processes, and not restarted"
        ));
    }
    cdi::note(context)?;
    if ours.is_empty() && pods.is_empty() {
        context.info("no container has a GPU");
        return Ok(());
    }
    let (system, users) = by_user(&ours);
    let failed = engines::wait_for(stop_system(context, &system, config))??;
    drop(podman);
    // Each user's by that user's side: what does not stop has its holders killed, and the run goes on.
    engines::wait_for(stop_users(context, users, config))??;
    if !failed.is_empty() {
        bail!("{} of {} containers did not stop: {}", failed.len(), ours.len(), failed.join("; "));
    }
    // Last, so that the kubelet is away for as short as can be.
    let of_pods = pods::take(context, &whole, &scope, &pods)?;
    context.status(format!("stopped containers: {}", ours.len() + of_pods));
    Ok(())
}

/// Containers of the system's engines, and those of each user's Podman.
fn by_user(ours: &[Container]) -> (Vec<&Container>, BTreeMap<u32, Vec<&Container>>) {
    let (mut system, mut users) = (Vec::new(), BTreeMap::<u32, Vec<&Container>>::new());
    for container in ours {
        container.user.map_or(&mut system, |uid| users.entry(uid).or_default()).push(container);
    }
    (system, users)
}

async fn stop_system(context: &Context, ours: &[&Container], config: &Containers) -> Result<Vec<String>> {
    let mut clients = BTreeMap::new();
    for container in ours {
        if !clients.contains_key(container.socket.as_str()) {
            let client = Client::new(&context.root, container.engine, &container.socket)?;
            clients.insert(container.socket.as_str(), client);
        }
    }
    stop_all(context, &clients, ours, config).await
}

/// Stops the containers of users, side by side.
///
/// # Errors
/// The ledger cannot be written.
async fn stop_users(
    context: &Context,
    users: BTreeMap<u32, Vec<&Container>>,
    config: &Containers,
) -> Result<()> {
    let budget = Duration::from_secs(config.stop_timeout_max) + USER;
    let results = engines::side_by_side(users, USERS, async |(uid, ours): (u32, Vec<&Container>)| {
        let client = match Client::of_user(&context.root, uid, budget).await {
            Ok(client) => client,
            Err(error) => {
                for container in &ours {
                    let object = Object::Container(container.in_ledger(config.health_timeout));
                    context.ledger.intent(Step::DrainContainers, object)?.leave_open();
                }
                return Ok(vec![error.to_string()]);
            }
        };
        let sockets = ours.iter().map(|container| (container.socket.as_str(), client.clone())).collect();
        let stopped = stop_all(context, &sockets, &ours, config).await;
        drop(sockets);
        client.end().await;
        stopped
    });
    for failed in results.await {
        for failure in failed? {
            context.warn(format!("a container of a user is not stopped, its holders are killed: {failure}"));
        }
    }
    Ok(())
}

/// Stops them, those first that others need last; returns what went wrong, container by container.
async fn stop_all(
    context: &Context,
    clients: &BTreeMap<&str, Client>,
    ours: &[&Container],
    config: &Containers,
) -> Result<Vec<String>> {
    // All of them before the first is touched. An engine that dies in the middle may take down
    // containers whose turn had not come: they are to be started again as well.
    let mut acts = Vec::new();
    for container in ours {
        let mut object = container.in_ledger(config.health_timeout);
        if container.auto_remove && config.auto_remove == AutoRemove::Recreate {
            let definition = clients[container.socket.as_str()].definition(&container.id).await?;
            object.definition = Some(serde_json::to_value(definition)?);
        }
        acts.push(context.ledger.intent(Step::DrainContainers, Object::Container(object))?);
    }
    let stopped = Cell::new(0);
    let mut failed = Vec::new();
    if !ours.is_empty() {
        context.status(format!("stopped 0 of {}", ours.len()));
    }
    for wave in engines::waves(&members(ours), Direction::Down) {
        let results = engines::side_by_side(wave, config.parallel, async |index: usize| {
            let (container, act) = (ours[index], acts[index]);
            let result = stop(context, &clients[container.socket.as_str()], container, act, config).await;
            stopped.set(stopped.get() + u32::from(result.is_ok()));
            context.status(format!("stopped {} of {}", stopped.get(), ours.len()));
            result.map_err(|error| format!("{container}: {error:#}"))
        });
        failed.extend(results.await.into_iter().filter_map(Result::err));
    }
    let always: Vec<&Container> =
        ours.iter().copied().filter(|container| container.restart == "always").collect();
    let results = engines::side_by_side(always, config.parallel, async |container: &Container| {
        stop_again(context, &clients[container.socket.as_str()], container, config).await
    });
    failed.extend(results.await.into_iter().filter_map(Result::err));
    Ok(failed)
}

/// Stops a container again that is up once more: an engine that died in the middle starts, when it is
/// back, also those that were stopped before, if their restart policy is `always` (seen with Docker).
async fn stop_again(
    context: &Context,
    client: &Client,
    container: &Container,
    config: &Containers,
) -> Result<(), String> {
    let grace = grace(container.stop_timeout, config.stop_timeout_max);
    match engines::bring_down(client, &container.id, grace).await {
        Ok(Ended::Brought) => {
            context.info(format!("stopped {container} again: its engine had started it"));
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{container}: {error}")),
    }
}

async fn stop(
    context: &Context,
    client: &Client,
    container: &Container,
    act: Intent<'_>,
    config: &Containers,
) -> Result<()> {
    let grace = grace(container.stop_timeout, config.stop_timeout_max);
    // An error leaves the act as it is, an intent: the order may have been heard and be carried out
    // later, so the undo has to look, and finds it running or starts it.
    let ended = engines::bring_down(client, &container.id, grace).await?;
    if container.auto_remove && config.auto_remove == AutoRemove::Recreate {
        act.done()?;
        context.info(format!(
            "stopped {container}: it {}; its engine deletes it now (--rm); it is recreated later",
            container.reasons()
        ));
        return Ok(());
    }
    if container.auto_remove {
        let reason =
            "was started with --rm: its engine deleted it when it stopped, as the configuration allows";
        act.done()?;
        act.lost(reason)?;
        context.warn(format!("{container} {reason}"));
        return Ok(());
    }
    if ended == Ended::Gone {
        act.failed("it was removed before the run stopped it")?;
        context.warn(format!("{container} was removed during the run: there is nothing to restore"));
        return Ok(());
    }
    act.done()?;
    context.info(format!("stopped {container}: it {}", container.reasons()));
    Ok(())
}

fn members(containers: &[&Container]) -> Vec<Member> {
    containers
        .iter()
        .map(|container| Member { aliases: container.aliases.clone(), needs: container.needs.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_timeout_is_the_containers_own_within_bounds() {
        for (own, longest, seconds) in [
            (None, 60, 10),
            (None, 5, 5),
            (Some(30), 60, 30),
            (Some(90), 60, 60),
            (Some(-1), 60, 60),
            (Some(0), 60, 0),
        ] {
            assert_eq!(grace(own, longest).as_secs(), seconds, "{own:?} {longest}");
        }
    }
}
