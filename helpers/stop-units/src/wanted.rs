// SPDX-License-Identifier: MIT
//! Which units have to stop: those that own holders, and those that look after containers.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bus::Manager;
use engines::{Owner, SURVEY_SCHEMA, Survey};
use holders::{Disposition, Guarded, Holder, Kind, Rules, Scope, is_logind};
use step::{Config, Context, Guard};

use crate::UnitKey;
use crate::closure::Role;

/// The helper that speaks with the engines.
const DRAIN: &str = "/usr/libexec/nvidia-reload/drain-containers";

/// How long it may take to ask all engines: each has its own limit.
const SURVEY: Duration = Duration::from_secs(300);

/// The units that own a holder at this moment, and those that look after containers, as the engines
/// say now; of the GPUs with these device nodes, or of all.
pub(crate) fn of_all(
    context: &Context,
    config: &Config,
    nodes: &[String],
) -> Result<BTreeMap<UnitKey, Role>> {
    let mut units = of_holders(context, config, &nodes.iter().cloned().collect())?;
    for unit in of_containers(nodes)? {
        units.entry(unit).or_insert(Role::Holder);
    }
    Ok(units)
}

/// The units that own a holder of `scope` at this moment.
pub(crate) fn of_holders(
    context: &Context,
    config: &Config,
    scope: &Scope,
) -> Result<BTreeMap<UnitKey, Role>> {
    let scan = holders::scan(&context.root)?.within(scope);
    let units = Guard::read(&context.root, &config.units.protect)?;
    let processes = Guard::read(&context.root, &config.processes.protect)?;
    let rules = Rules { units: &units, processes: &processes, ..Rules::default() };
    let guarded = Guarded { user: None, units: &units };
    let mut wanted = BTreeMap::new();
    for holder in &scan.holders {
        // Others are not this step's. Those that may not be touched were refused before, or are
        // gone in an instant; the next step names them if they are not.
        if let Disposition::StopUnit { user, unit } = rules.disposition(holder) {
            let serves = serves_others(&unit, holder);
            let role = wanted.entry((user, unit)).or_insert(Role::Holder);
            if serves {
                *role = Role::Service;
            }
        }
    }
    let keeps = |holder: &&Holder| holder.pid == 1 && !is_logind(&holder.owner);
    if let Some(first) = scan.holders.iter().find(keeps) {
        for unit in fd_store_owners(&Manager::system()?, first)? {
            if guarded.why(&unit).is_some() {
                continue;
            }
            let role = wanted.entry((None, unit)).or_insert(Role::FdStore);
            if *role == Role::Holder {
                *role = Role::FdStore;
            }
        }
    }
    Ok(wanted)
}

/// The services for which PID 1 keeps descriptors of the devices that it holds. Where it does not
/// tell what it keeps (before systemd 254), the one service for which it keeps anything: with
/// several it cannot be known, and the next step reports that.
fn fd_store_owners(manager: &Manager, first: &Holder) -> Result<Vec<String>> {
    let numbers: Vec<(u32, u32)> =
        first.devices.iter().filter_map(|device| device.rdev.map(|rdev| (rdev.major, rdev.minor))).collect();
    let mut sure = Vec::new();
    let mut perhaps = Vec::new();
    for service in manager.units(&["*.service"])? {
        if !service.active.is_up() || holders::is_core(&service.name) {
            continue;
        }
        let stored = manager.stored(&service.name)?;
        if stored.iter().flatten().any(|number| numbers.contains(number)) {
            sure.push(service.name);
        } else if stored.iter().any(Option::is_none) {
            perhaps.push(service.name);
        }
    }
    Ok(if sure.is_empty() && perhaps.len() == 1 { perhaps } else { sure })
}

/// Whether what a unit does is needed by others that use the GPU: it has the switches of the
/// fabric, or it is one of NVIDIA's services that hold nothing of their own kind.
fn serves_others(unit: &str, holder: &Holder) -> bool {
    const NAMES: [&str; 4] = [
        "nvidia-fabricmanager.service",
        "nvidia-imex.service",
        "nvidia-persistenced.service",
        "nvlsm.service",
    ];
    NAMES.contains(&unit)
        || holder.devices.iter().any(|device| matches!(device.kind, Kind::Nvswitch | Kind::Nvlink))
}

/// The units that look after a container with a GPU, which may be idle: they would start it again
/// behind the back of its engine.
fn of_containers(nodes: &[String]) -> Result<BTreeSet<UnitKey>> {
    let mut command = Command::new(DRAIN);
    command.args(["list", "--json"]).args(nodes.iter().map(|node| format!("--node={node}")));
    let (status, output) = bounded::child(&mut command, Instant::now() + SURVEY, bounded::BODY)
        .with_context(|| format!("run {DRAIN}"))?;
    if !status.success() {
        bail!("{DRAIN} list ended with {status}");
    }
    units_of(&output)
}

fn units_of(survey: &[u8]) -> Result<BTreeSet<UnitKey>> {
    let survey: Survey =
        serde_json::from_slice(survey).with_context(|| format!("understand the output of {DRAIN} list"))?;
    if survey.schema != SURVEY_SCHEMA {
        bail!("{DRAIN} speaks {}, not {SURVEY_SCHEMA}: install one version of everything", survey.schema);
    }
    Ok(survey
        .containers
        .into_iter()
        .filter_map(|container| match container.owner {
            // Of the same user as the engine.
            Owner::Unit { unit } => Some((container.user, unit)),
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_not_understood() {
        let survey = r#"{"schema":"other/9","engines":[],"containers":[],"unknown":[]}"#;
        let error = units_of(survey.as_bytes()).expect_err("must refuse").to_string();
        assert!(error.contains("other/9"), "{error}");
        assert!(units_of(b"nonsense").is_err());
    }

    #[test]
    fn no_containers_no_units() {
        let survey = format!(r#"{{"schema":"{SURVEY_SCHEMA}","engines":[],"containers":[],"unknown":[]}}"#);
        assert!(units_of(survey.as_bytes()).expect("understood").is_empty());
    }
}
