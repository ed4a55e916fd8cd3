// SPDX-License-Identifier: MIT
//! What ran when the run was opened, and was ended by somebody else than this run.
//!
//! `dockerd` takes its containers along when it dies, and when it is back, those without a restart policy stay
//! down: they are restored as if they had been stopped here. What a person stopped meanwhile, or what ended by
//! itself, stays as it is.

use std::collections::BTreeMap;

use anyhow::Result;
use engines::{Client, Daemon, Engine, Error, Inspect, Kind, Phase, Presence, Running, Survey};
use ledger::{Container, Object, Run, Step};
use step::{Away, Context, unit_away};

/// What its engine says of a container now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Now {
    Up,
    /// And when it ended, in microseconds since 1970.
    Down(Option<u64>),
    Gone,
    /// The engine does not answer.
    Unknown,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It runs, or it is not known that it does not.
    Leave,
    /// Its engine ended it: it is restored.
    Restore,
    /// Its engine died and has it no more: it is lost.
    Lost,
    /// Somebody else did, or it did itself.
    Name,
}

/// `death` is none where the engine lives as it did when the run was opened; else when it was away, as far as
/// that is known.
fn judge(now: &Now, death: Option<Option<Away>>) -> Verdict {
    match (now, death) {
        (Now::Up, _) | (Now::Unknown, None) => Verdict::Leave,
        // When everything is restored, the engine is asked again.
        (Now::Unknown, Some(_)) => Verdict::Restore,
        (Now::Gone | Now::Down(_), None) => Verdict::Name,
        (Now::Gone, Some(_)) => Verdict::Lost,
        (Now::Down(Some(ended)), Some(Some(Away { left, back }))) => {
            // Docker ends what its daemon left behind before it says that it is up.
            let is_of_death = *ended >= left && (back < left || *ended <= back);
            if is_of_death { Verdict::Restore } else { Verdict::Name }
        }
        // In doubt it is not lost.
        (Now::Down(_), Some(_)) => Verdict::Restore,
    }
}

/// Writes an intent for each container that its engine ended since the run was opened, and names the others
/// that do not run any more.
///
/// # Errors
/// `/proc` cannot be read, or the ledger cannot be written.
pub(crate) async fn note(context: &Context, run: &Run, survey: &Survey) -> Result<()> {
    let missing: Vec<&Container> = run
        .snapshot
        .containers
        .iter()
        .filter(|ran| !survey.containers.iter().any(|up| up.id == ran.id && up.user == ran.user))
        .filter(|ran| !run.acts.iter().any(|act| is_of(&act.object, ran)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let death = death(context, run.snapshot.dockerd, Running::look(&context.root)?.dockerd());
    let mut clients = BTreeMap::new();
    for ran in missing {
        let is_docker = ran.engine == Kind::Docker.name();
        let now = now(context, &mut clients, run, survey, ran).await;
        let name = Object::Container(ran.clone());
        match judge(&now, death.filter(|_| is_docker)) {
            Verdict::Leave => {}
            Verdict::Restore => {
                context.ledger.intent(Step::DrainContainers, name.clone())?.leave_open();
                context.warn(format!(
                    "{name} ran when the run was opened, and ended with its engine: it is restored"
                ));
            }
            Verdict::Lost => {
                let reason =
                    "its engine died before it was stopped, and no longer has it (--rm, or it was removed)";
                context.ledger.intent(Step::DrainContainers, name.clone())?.lost(reason)?;
                context.warn(format!("{name} is lost: {reason}"));
            }
            Verdict::Name => {
                let how = if now == Now::Gone { "was removed" } else { "was stopped, or exited by itself" };
                context.warn(format!(
                    "{name} ran when the run was opened, and {how} since, not by this run: it is not restarted"
                ));
            }
        }
    }
    Ok(())
}

fn is_of(object: &Object, ran: &Container) -> bool {
    matches!(object, Object::Container(taken) if taken.id == ran.id && taken.user == ran.user)
}

/// Whether `dockerd` has died since, and when it was away.
fn death(context: &Context, then: Option<u64>, now: Option<&Daemon>) -> Option<Option<Away>> {
    if now.map(|now| now.started) == then {
        return None;
    }
    let unit = now.and_then(|now| now.unit.as_deref()).filter(|_| context.root.is_system());
    let away = unit.map(unit_away).transpose().unwrap_or_else(|error| {
        context.warn(format!("when dockerd was away is not known: {error}"));
        None
    });
    Some(away.filter(|away| away.left > 0))
}

async fn now<'a>(
    context: &Context,
    clients: &mut BTreeMap<&'a str, Client>,
    run: &Run,
    survey: &Survey,
    ran: &'a Container,
) -> Now {
    let is_its = |engine: &&Engine| engine.kind.name() == ran.engine && engine.user == ran.user;
    let engine = survey.engines.iter().find(is_its);
    let answers = match (engine.map(|engine| &engine.presence), Kind::from_name(&ran.engine), ran.user) {
        // Each container of Podman's has a process that looks after it: there is none.
        (Some(Presence::Absent { .. }), Some(Kind::Podman), _) => return Now::Down(None),
        // Of all GPUs, the survey has what runs and has one.
        (Some(Presence::Ready), _, Some(_)) if run.snapshot.chosen.is_empty() => return Now::Down(None),
        (Some(Presence::Ready), Some(kind), None) => kind,
        _ => return Now::Unknown,
    };
    if !clients.contains_key(ran.socket.as_str()) {
        match Client::new(&context.root, answers, &ran.socket) {
            Ok(client) => clients.insert(&ran.socket, client),
            Err(_) => return Now::Unknown,
        };
    }
    match clients[ran.socket.as_str()].inspect(&ran.id).await {
        Ok(container) => of(&container),
        Err(Error::Gone) => Now::Gone,
        Err(error) => {
            context.warn(format!("{}: {error}", Object::Container(ran.clone())));
            Now::Unknown
        }
    }
}

fn of(container: &Inspect) -> Now {
    match container.phase() {
        Phase::Down => Now::Down(container.finished_usec()),
        Phase::Removing => Now::Gone,
        _ => Now::Up,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_its_engine_ended_is_restored_and_what_somebody_ended_is_named() {
        let died = |left, back| Some(Some(Away { left, back }));
        for (now, death, expected) in [
            (Now::Up, None, Verdict::Leave),
            (Now::Up, died(100, 200), Verdict::Leave),
            (Now::Down(Some(150)), None, Verdict::Name),
            (Now::Down(None), None, Verdict::Name),
            (Now::Gone, None, Verdict::Name),
            (Now::Unknown, None, Verdict::Leave),
            // Before it died, while it was away or came back, after that.
            (Now::Down(Some(99)), died(100, 200), Verdict::Name),
            (Now::Down(Some(100)), died(100, 200), Verdict::Restore),
            (Now::Down(Some(200)), died(100, 200), Verdict::Restore),
            (Now::Down(Some(201)), died(100, 200), Verdict::Name),
            // It is still away: `back` is of an earlier time.
            (Now::Down(Some(150)), died(100, 50), Verdict::Restore),
            (Now::Down(Some(99)), died(100, 50), Verdict::Name),
            (Now::Unknown, died(100, 50), Verdict::Restore),
            // Neither systemd nor the engine tells when.
            (Now::Down(Some(150)), Some(None), Verdict::Restore),
            (Now::Down(None), died(100, 200), Verdict::Restore),
            (Now::Unknown, Some(None), Verdict::Restore),
            (Now::Gone, died(100, 200), Verdict::Lost),
        ] {
            assert_eq!(judge(&now, death), expected, "{now:?} {death:?}");
        }
    }
}
