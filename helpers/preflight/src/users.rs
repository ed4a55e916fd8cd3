// SPDX-License-Identifier: MIT
//! Who has the GPU, and what would be done to each of them.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use anyhow::Result;
use engines::{Container, Decision, Engine, Kind, Owner, Presence, SURVEY_SCHEMA, Survey, decide};
use holders::{Caller, Disposition, Holder, Rules, Scan, below, mps};
use ledger::Step;
use serde::Deserialize;
use slurm::Slurm;
use step::{Action, Config, Context, Guard};

use crate::findings::Findings;
use crate::of_users::{add_plain, add_unexplained, described, devices, in_socket, killed, processes, user};
use crate::sessions;
use crate::sibling::{DRAIN, SIBLING, STOP, ask};

pub(crate) fn assess(
    context: &Context,
    config: &Config,
    survey: &Survey,
    scan: &Scan,
    nodes: &[String],
    findings: &mut Findings,
) -> Result<Vec<Action>> {
    let mut actions = containers(config, survey, &scan.holders, findings);
    let caller = Caller::this(&context.root);
    let units_protected = Guard::read(&context.root, &config.units.protect)?;
    let protected = Guard::read(&context.root, &config.processes.protect)?;
    let rules =
        Rules { units: &units_protected, processes: &protected, caller: Some(&caller), ..Rules::default() };
    let below = below_users_containers(context, survey);
    let (mut plain, mut unguarded) = (BTreeMap::new(), BTreeMap::new());
    let first = scan.holders.iter().find(|holder| holder.pid == 1);
    for holder in &scan.holders {
        // What is of a job is named with the job.
        if below.contains(&holder.pid) || matches!(holder.owner, holders::Owner::SlurmStep { .. }) {
            continue;
        }
        let disposition = rules.disposition(holder);
        if let Some(name) = holder.unguarded_by(&units_protected, &protected)
            && !matches!(disposition, Disposition::Refuse { .. })
        {
            unguarded.entry((name.to_owned(), user(holder))).or_insert_with(Vec::new).push(holder.pid);
        }
        match disposition {
            Disposition::StopContainer if is_surveyed(survey, holder) => {}
            // A user's claim that no engine of that user's confirms.
            Disposition::StopContainer if is_users_claim(holder) => add_plain(&mut plain, holder),
            Disposition::StopContainer => findings.refuse(
                format!("{} runs in a container that no engine here answers for", described(holder)),
                match is_in_pod(holder) {
                    true => "drain this machine in Kubernetes first, or start the pod's containerd",
                    false => "stop it, or start its engine",
                },
            ),
            Disposition::StopUnit { user, unit } => add_unit(&mut actions, user, unit, holder),
            Disposition::Kill => add_plain(&mut plain, holder),
            // What PID 1 holds for logind goes with what that closes.
            Disposition::Release if holder.pid == 1 => {}
            Disposition::Release => actions.extend(sessions::released(context, config, holder, findings)?),
            // For which service PID 1 keeps it is stop-units' to find out, below.
            Disposition::Refuse { .. } if holder.pid == 1 => {}
            Disposition::Refuse { why, remedy } => {
                findings.refuse(format!("{} holds {} and {why}", described(holder), devices(holder)), remedy);
            }
        }
    }
    actions.extend(plain.into_iter().flat_map(|(user, holders)| killed(&user, &holders)));
    for ((name, user), pids) in unguarded {
        findings.warn(
            format!("{name:?} under protect does not protect {} of user {user}", processes(&pids)),
            format!("write \"{user}:{name}\" to protect it: a bare name is of root and of system units"),
        );
    }
    if first.is_some() || actions.iter().any(|action| action.step == Step::StopUnits) {
        let units = units(nodes)?;
        if let Some(first) = first
            && !units.units.iter().any(|unit| unit.role == "keeper")
            && !holders::is_logind(&first.owner)
            && let Disposition::Refuse { why, remedy } = rules.disposition(first)
        {
            findings.refuse(format!("{} holds {} and {why}", described(first), devices(first)), remedy);
        }
        add_along(&mut actions, units, findings);
    }
    actions.extend(scan.consoles.iter().map(|console| Action {
        step: Step::UnbindVt,
        object: format!("console {}", console.name),
        what: "unbind, bind again afterwards".into(),
        why: format!("it is drawn on {}", console.framebuffers.join(", ")),
        pids: Vec::new(),
        comes_back: true,
    }));
    for unexplained in &scan.unexplained {
        add_unexplained(unexplained, findings);
    }
    // Of a reset of some GPUs other users' descriptors may be of the others.
    if scan.unexplained.is_empty() && nodes.is_empty() {
        for place in holders::sent_by_others(&context.root, scan)? {
            in_socket("a device of the driver is in flight", &place, findings);
        }
    }
    for unseen in &scan.unseen {
        findings.warn(format!("not everything could be checked: {unseen}"), "see why that is denied to root");
    }
    Ok(actions)
}

/// Who may have a GPU and cannot be asked.
pub(crate) fn unknown(survey: &Survey, scan: &Scan, slurm: Option<&Slurm>) -> Vec<String> {
    let silent = |engine: &Engine| match &engine.presence {
        Presence::Unreachable { reason, .. } => {
            Some(format!("{engine} cannot be asked for its containers: {reason}"))
        }
        _ => None,
    };
    let unexplained = scan.unexplained.iter().map(|what| format!("unexplained: {what}"));
    let unclear = survey.unclear.iter().cloned();
    let slurm = slurm.and_then(|slurm| slurm.silent.as_ref());
    let slurm = slurm.map(|why| format!("Slurm does not report which jobs have a GPU: {why}"));
    survey.engines.iter().filter_map(silent).chain(unexplained).chain(unclear).chain(slurm).collect()
}

/// The units that look after a container of the survey: of the same user as the engine.
pub(crate) fn container_units(survey: &Survey) -> Vec<(Option<u32>, String)> {
    let unit = |container: &Container| match &container.owner {
        Owner::Unit { unit } => Some((container.user, unit.clone())),
        _ => None,
    };
    survey.containers.iter().filter_map(unit).collect()
}

/// What the run stops by its engine, as it will be in the ledger.
pub(crate) fn to_drain(config: &Config, survey: &Survey) -> Vec<ledger::Container> {
    let is_ours = |container: &&Container| {
        matches!(decide(container, config), Decision::Restart | Decision::Recreate | Decision::LetGo)
    };
    let ours = survey.containers.iter().filter(is_ours);
    ours.map(|container| container.in_ledger(config.containers.health_timeout)).collect()
}

/// What drain-containers finds by `until` of the GPUs with these device nodes, or of all.
pub(crate) fn survey(nodes: &[String], until: Instant) -> Result<Survey> {
    let survey: Survey = ask(DRAIN, nodes, until)?;
    if survey.schema != SURVEY_SCHEMA {
        anyhow::bail!(
            "{DRAIN} speaks {}, not {SURVEY_SCHEMA}: install one version of everything",
            survey.schema
        );
    }
    Ok(survey)
}

fn containers(config: &Config, survey: &Survey, holders: &[Holder], findings: &mut Findings) -> Vec<Action> {
    for engine in &survey.engines {
        if let Presence::Unreachable { reason, .. } = &engine.presence {
            findings.warn(
                format!("{engine} cannot be asked for its containers: {reason}"),
                match engine.user {
                    None => "see whether its service runs; a container of it that holds the GPU is a refusal",
                    Some(_) => {
                        "see whether its service runs; a container of it that holds the GPU is terminated and not restarted"
                    }
                },
            );
        }
    }
    for unclear in &survey.unclear {
        findings.warn(
            unclear,
            "find out what it is; if it has a GPU, stop it before the run and start it afterwards",
        );
    }
    let mut actions = Vec::new();
    for container in &survey.containers {
        let mut add = |change: Option<(&str, bool)>| {
            let mut action = action(Step::DrainContainers, container.to_string(), container, holders);
            if let Some((what, comes_back)) = change {
                (action.what, action.comes_back) = (what.into(), comes_back);
            }
            actions.push(action);
        };
        match decide(container, config) {
            // Its processes are named instead.
            Decision::Plain => {}
            Decision::Refuse(reason) => findings.refuse(reason.what, reason.remedy),
            Decision::Restart => add(None),
            Decision::Recreate => {
                add(Some(("stop; its engine deletes it (--rm); recreate it afterwards", true)));
            }
            Decision::LetGo => add(Some(("stop; its engine deletes it then (--rm)", false))),
            Decision::Pod(kubelet) => {
                add_kubelet(&mut actions, &kubelet);
                actions.push(action(Step::DrainContainers, container.to_string(), container, holders));
            }
            // Stopped and started with its unit.
            Decision::Unit(unit) => {
                actions.push(action(Step::StopUnits, named(container.user, unit), container, holders));
            }
        }
    }
    actions
}

fn add_kubelet(actions: &mut Vec<Action>, unit: &str) {
    if actions.iter().any(|action| action.object == unit) {
        return;
    }
    actions.push(Action {
        step: Step::DrainContainers,
        object: unit.to_owned(),
        what: "stop, start again afterwards".into(),
        why: "it would start the containers of pods again, and does so afterwards".into(),
        pids: Vec::new(),
        comes_back: true,
    });
}

fn action(step: Step, object: String, container: &Container, holders: &[Holder]) -> Action {
    let mut pids: Vec<i32> =
        holders.iter().filter(|holder| is_in(container, holder)).map(|holder| holder.pid).collect();
    // It ends with its first process, also one that holds nothing at the moment.
    if pids.is_empty() && container.pid > 0 {
        pids.push(container.pid);
    }
    Action {
        step,
        object,
        what: match container.engine {
            _ if container.paused => "stop, start and pause again afterwards",
            Kind::Containerd | Kind::CriO => "stop; the kubelet starts it again afterwards",
            _ => "stop, start again afterwards",
        }
        .into(),
        why: container.reasons(),
        pids,
        comes_back: true,
    }
}

fn is_in(container: &Container, holder: &Holder) -> bool {
    matches!(&holder.owner, holders::Owner::Container(owner)
        if owner.id == container.id && owner.uid == container.user)
}

fn is_in_pod(holder: &Holder) -> bool {
    matches!(&holder.owner, holders::Owner::Container(owner) if owner.pod.is_some())
}

/// The processes of containers of users' own Podmans. Without a session of systemd's that Podman makes no
/// control group of its own (seen with 4.3), so its processes tell, not their group.
fn below_users_containers(context: &Context, survey: &Survey) -> HashSet<i32> {
    let is_stopped = |container: &&Container| container.user.is_some() && !container.is_plain();
    let of_users = survey.containers.iter().filter(is_stopped);
    let first: Vec<i32> = of_users.map(|container| container.pid).collect();
    below(&context.root, &first)
}

/// Whether it is in a control group that a user calls a container.
fn is_users_claim(holder: &Holder) -> bool {
    matches!(&holder.owner, holders::Owner::Container(owner) if owner.uid.is_some())
}

/// Whether a process was seen in a container that no engine of root's has.
pub(crate) fn is_unanswered(survey: &Survey, scan: &Scan) -> bool {
    let is_claim =
        |holder: &&Holder| matches!(&holder.owner, holders::Owner::Container(owner) if owner.uid.is_none());
    let is_known = |holder: &Holder| survey.containers.iter().any(|container| is_in(container, holder));
    scan.holders.iter().filter(is_claim).any(|holder| !is_known(holder))
}

fn is_surveyed(survey: &Survey, holder: &Holder) -> bool {
    survey.containers.iter().any(|container| !container.is_plain() && is_in(container, holder))
}

fn add_unit(actions: &mut Vec<Action>, user: Option<u32>, unit: String, holder: &Holder) {
    let object = named(user, unit);
    let known = actions.iter_mut().find(|action| action.step == Step::StopUnits && action.object == object);
    if let Some(action) = known {
        if !action.pids.contains(&holder.pid) {
            action.pids.push(holder.pid);
        }
        return;
    }
    actions.push(Action {
        step: Step::StopUnits,
        object,
        what: "stop, start again afterwards".into(),
        why: format!(
            "{} {} of it holds {}",
            mps(&holder.command).unwrap_or("process"),
            holder.pid,
            devices(holder)
        ),
        pids: vec![holder.pid],
        comes_back: true,
    });
}

/// What stop-units says it would stop.
#[derive(Deserialize)]
struct Units {
    schema: String,
    units: Vec<Listed>,
    /// Why it would refuse, a sentence each.
    refused: Vec<String>,
    /// Users whose units it cannot stop.
    unasked: Vec<Unasked>,
}

#[derive(Deserialize)]
struct Unasked {
    user: u32,
    reason: String,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    user: Option<u32>,
    role: String,
}

/// The schema of stop-units that is understood here.
const UNITS_SCHEMA: &str = "nvidia-reload.units/1";

fn units(nodes: &[String]) -> Result<Units> {
    let units: Units = ask(STOP, nodes, Instant::now() + SIBLING)?;
    if units.schema != UNITS_SCHEMA {
        anyhow::bail!(
            "{STOP} speaks {}, not {UNITS_SCHEMA}: install one version of everything",
            units.schema
        );
    }
    Ok(units)
}

/// Adds the units that a stop takes along, and refuses what stop-units would: now, while everything
/// still runs.
fn add_along(actions: &mut Vec<Action>, units: Units, findings: &mut Findings) {
    for reason in units.refused {
        findings.refuse(reason, "stop it, or lift what protects it");
    }
    for Unasked { user, reason } in units.unasked {
        findings.warn(
            format!("the units of user {user} cannot be stopped: {reason}"),
            "their processes that hold the GPU will be killed",
        );
        let is_theirs = |action: &&mut Action| {
            action.step == Step::StopUnits && action.object.ends_with(&named(Some(user), String::new()))
        };
        for action in actions.iter_mut().filter(is_theirs) {
            action.what = "kill; start again afterwards only if the user's manager answers then".into();
            action.comes_back = false;
        }
    }
    for unit in units.units {
        let why = match unit.role.as_str() {
            "keeper" => "PID 1 keeps a descriptor of the GPU for it",
            "trigger" => "it would start a unit that holds the GPU again",
            "dependent" => "it goes when a unit goes that holds the GPU",
            _ => continue,
        };
        actions.push(Action {
            step: Step::StopUnits,
            object: named(unit.user, unit.name),
            what: "stop, start again afterwards".into(),
            why: why.into(),
            pids: Vec::new(),
            comes_back: true,
        });
    }
}

fn named(user: Option<u32>, unit: String) -> String {
    match user {
        Some(uid) => format!("{unit} of user {uid}"),
        None => unit,
    }
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;
