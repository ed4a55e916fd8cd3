// SPDX-License-Identifier: MIT
//! Services that failed because of the old driver or the run: they are started once the new driver works.
//!
//! The packages of a new driver restart NVIDIA's services while the old one is loaded: they fail. What is
//! started while the driver is out is skipped by our drop-ins. Nothing else starts them again.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Error, Result, bail};
use bus::{ActiveState, LoadState, Manager, Standing};
use ledger::{Object, Run, Step, Unit};
use modules::{DRIVER, Disk, driver_version};
use step::{Context, NVIDIAS_SERVICES, ServicesDown, services_there};

/// The word in the ledger, since its first format, for a unit that runs again although this run did not stop it.
pub(crate) const FAILED_SERVICE: &str = "felled";

/// What our drop-ins and others look for before they start.
const BUSY: &str = "/run/nvidia-reload/busy";

/// A service that failed longer than this before the driver's files came did not fail because of them. They may
/// come a while after its own: a module is built on the machine.
const BEFORE: Duration = Duration::from_secs(6 * 60 * 60);

/// How long what came up has to stay up: a service that fails late looks well at first.
const STAYS: Duration = Duration::from_secs(3);

/// The place of a unit among NVIDIA's services.
pub(crate) fn rank(name: &str) -> usize {
    NVIDIAS_SERVICES.iter().position(|names| names.contains(&name)).unwrap_or(NVIDIAS_SERVICES.len() - 1)
}

/// How a service failed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// It failed, with this result.
    Failed(String),
    /// It fails and is restarted, again and again.
    Loops,
    /// It was not started while the driver was out.
    Skipped,
    /// It stopped with this one, which failed and which it requires.
    With(String),
}

/// How it failed, if it did. What failed before `since`, in microseconds since 1970, has another reason.
fn failure(standing: &Standing, since: u64) -> Option<Failure> {
    if standing.unit.load != LoadState::Loaded {
        return None;
    }
    match standing.unit.active {
        ActiveState::Failed if standing.changed_usec >= since => {
            Some(Failure::Failed(standing.result.clone()))
        }
        ActiveState::Activating if standing.unit.sub.starts_with("auto-restart") || standing.restarts > 0 => {
            Some(Failure::Loops)
        }
        ActiveState::Inactive if standing.unmet.iter().any(|about| about == BUSY) => Some(Failure::Skipped),
        _ => None,
    }
}

/// A service that failed, and how.
type FailedService = (Standing, Failure);

/// How far apart two units go down of which one takes the other along: each has the time to stop.
const TOGETHER: Duration = Duration::from_secs(100);

/// Whether it went down with one of `failed`: a restart of that took it along, and did not bring it back. One that
/// an administrator stopped went down at another time.
fn failed_with(standing: &Standing, failed: &[FailedService]) -> Option<Failure> {
    if standing.unit.load != LoadState::Loaded || standing.unit.active != ActiveState::Inactive {
        return None;
    }
    let took_along = |other: &&FailedService| {
        let apart = Duration::from_micros(other.0.left_usec.abs_diff(standing.left_usec));
        standing.left_usec > 0 && standing.requires.contains(&other.0.unit.name) && apart <= TOGETHER
    };
    failed.iter().find(took_along).map(|other| Failure::With(other.0.unit.name.clone()))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(result) => write!(f, "failed ({result})"),
            Failure::Loops => f.write_str("fails again and again"),
            Failure::With(other) => write!(f, "went down with {other}"),
            Failure::Skipped => f.write_str("was not started while the driver was out"),
        }
    }
}

/// Writes into the open run which services are to be started again.
///
/// # Errors
/// The manager does not answer, or the ledger cannot be written.
pub(crate) fn note(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run")?;
    let manager = Manager::system()?;
    let (failed, _, problems) = down(context, &manager, since(context, &run)?)?;
    for (standing, fall) in wanted(&failed, |name| Ok(manager.unit(name)?.active.is_up()))? {
        let name = &standing.unit.name;
        if run.outstanding(Step::StopUnits).iter().any(|act| act.object.is_system_unit(name)) {
            continue;
        }
        context.info(format!("{name} {fall}: it is started with the new driver"));
        let unit = Unit { name: name.clone(), user: None, role: FAILED_SERVICE.to_owned() };
        context.ledger.act(Step::StopUnits, Object::Unit(unit), || Ok(()))?;
    }
    // One name that cannot be asked for keeps no other service down.
    if !problems.is_empty() {
        bail!("whether these have to be started is not known: {}", problems.join("; "));
    }
    Ok(())
}

/// Prints [`ServicesDown`] as JSON, of a run that began now.
///
/// # Errors
/// The manager does not answer.
pub(crate) fn list(context: &Context) -> Result<()> {
    let manager = Manager::system()?;
    let loaded = driver_version(&context.root)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = match Disk::open(&context.root)?.find(DRIVER)? {
        Some(file) if file.version != loaded => came_before(&file.path)?,
        _ => u64::try_from(now.as_micros())?,
    };
    let (failed, unwanted, problems) = down(context, &manager, since)?;
    let wanted = wanted(&failed, |name| Ok(manager.unit(name)?.active.is_up()))?;
    let failed =
        wanted.iter().map(|(standing, fall)| (standing.unit.name.clone(), fall.to_string())).collect();
    println!("{}", serde_json::to_string(&ServicesDown { failed, unwanted })?);
    if !problems.is_empty() {
        bail!("whether these have to be started is not known: {}", problems.join("; "));
    }
    Ok(())
}

/// Of the services that are down: those that failed, those that no unit wants, and what is wrong with those that
/// cannot be asked for.
fn down(
    context: &Context,
    manager: &Manager,
    since: u64,
) -> Result<(Vec<FailedService>, Vec<String>, Vec<String>)> {
    let config = context.config()?;
    let names: Vec<&str> = services_there(&context.root, &config).collect();
    let (mut failed, mut unwanted, mut problems) = (Vec::<FailedService>::new(), Vec::new(), Vec::new());
    // One question for all: on a healthy machine it is the only one.
    let listed = manager.units(&names)?;
    let is_up =
        |name: &&str| listed.iter().any(|unit| unit.name == **name && unit.active == ActiveState::Active);
    for name in names.into_iter().filter(|name| !is_up(name)) {
        let standing = match manager.standing(name) {
            Ok(standing) => standing,
            Err(error) => {
                problems.push(format!("{name}: {:#}", Error::from(error)));
                continue;
            }
        };
        if standing.wanted_by.is_empty() {
            unwanted.push(name.to_owned());
        }
        if standing.unit.active == ActiveState::Failed && self::failure(&standing, since).is_none() {
            context.info(format!("{name} failed before the driver was changed: it is left as it is"));
        }
        let fall = self::failure(&standing, since).or_else(|| failed_with(&standing, &failed));
        let is_known = failed.iter().any(|(known, _)| known.unit.name == standing.unit.name);
        if let Some(fall) = fall.filter(|_| !is_known) {
            failed.push((standing, fall));
        }
    }
    Ok((failed, unwanted, problems))
}

/// From when on a failure may be this driver's change: microseconds since 1970.
fn since(context: &Context, run: &Run) -> Result<u64> {
    let before = run.snapshot.modules.iter().find(|module| module.name == DRIVER);
    let before = before.and_then(|module| module.version.clone());
    if before == driver_version(&context.root)? {
        return Ok(run.opened_usec);
    }
    let Some(file) = Disk::open(&context.root)?.find(DRIVER)? else { return Ok(0) };
    Ok(came_before(&file.path)?.min(run.opened_usec))
}

/// From when on a failure may be because of a file that was changed: microseconds since 1970.
fn came_before(path: &Path) -> Result<u64> {
    let meta = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    let changed = Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or_default());
    Ok(u64::try_from(changed.saturating_sub(BEFORE).as_micros())?)
}

/// Those of `failed` that a unit wants that is up, or that is one of them and wanted itself.
fn wanted(failed: &[FailedService], is_up: impl Fn(&str) -> Result<bool>) -> Result<Vec<&FailedService>> {
    let mut found: BTreeSet<usize> = BTreeSet::new();
    loop {
        let count = found.len();
        for (at, (standing, _)) in failed.iter().enumerate() {
            for by in &standing.wanted_by {
                let is_among = found.iter().any(|other| failed[*other].0.unit.name == *by);
                if !found.contains(&at) && (is_among || is_up(by)?) {
                    found.insert(at);
                }
            }
        }
        if found.len() == count {
            return Ok(found.into_iter().map(|at| &failed[at]).collect());
        }
    }
}

/// Lets a unit be started that failed: without its start limit, of whichever form.
pub(crate) fn reset_failed(manager: &Manager, name: &str) {
    // One that did not fail has nothing to forgive; whether it starts shows when it is started.
    let _ = manager.reset_failed(name);
}

/// Waits until `name` has been up for a while. Why it is not.
pub(crate) fn stays(manager: &Manager, name: &str) -> Result<(), String> {
    let until = Instant::now() + 2 * STAYS;
    loop {
        let now = manager.standing(name).map_err(|error| error.to_string())?;
        let is_oneshot_done = now.unit.active == ActiveState::Inactive && now.result == "success";
        match now.unit.active {
            ActiveState::Active if is_old(now.up_usec) => return Ok(()),
            ActiveState::Inactive if is_oneshot_done && now.unmet.is_empty() => return Ok(()),
            ActiveState::Inactive | ActiveState::Failed => {
                return Err(format!("it came up and went down again ({})", now.result));
            }
            ActiveState::Activating if now.unit.sub.starts_with("auto-restart") => {
                return Err(format!("it came up and fails again and again ({})", now.result));
            }
            _ if Instant::now() >= until => {
                return Err(format!("it is {} ({})", now.unit.active, now.unit.sub));
            }
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Whether a time of CLOCK_MONOTONIC is long enough ago.
fn is_old(up_usec: u64) -> bool {
    step::monotonic_usec().saturating_sub(up_usec) >= u64::try_from(STAYS.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bus::Unit;

    use super::*;

    fn standing(name: &str, active: &str, sub: &str) -> Standing {
        Standing {
            unit: Unit {
                name: name.to_owned(),
                load: LoadState::Loaded,
                active: active.to_owned().into(),
                sub: sub.to_owned(),
                job: None,
                fragment: String::new(),
                asserted: true,
            },
            result: "exit-code".to_owned(),
            restarts: 0,
            wanted_by: vec!["multi-user.target".to_owned()],
            requires: Vec::new(),
            left_usec: 0,
            unmet: Vec::new(),
            changed_usec: 100,
            up_usec: 0,
        }
    }

    #[test]
    fn what_failed_loops_or_was_skipped_has_failed_and_what_was_stopped_has_not() {
        let of = |active, sub| standing("a.service", active, sub);
        let failed = Some(Failure::Failed("exit-code".into()));
        assert_eq!(failure(&of("failed", "failed"), 100), failed);
        assert_eq!(failure(&of("failed", "failed"), 101), None, "before there was another driver");
        for sub in ["auto-restart", "auto-restart-queued"] {
            assert_eq!(failure(&of("activating", sub), 0), Some(Failure::Loops), "{sub}");
        }
        assert_eq!(failure(&of("activating", "start"), 0), None, "it starts for the first time");
        let again = Standing { restarts: 7, ..of("activating", "start") };
        assert_eq!(failure(&again, 0), Some(Failure::Loops), "between two failures");
        assert_eq!(failure(&of("inactive", "dead"), 0), None, "an administrator stopped it");
        let skipped = Standing { unmet: vec![BUSY.into()], ..of("inactive", "dead") };
        assert_eq!(failure(&skipped, 0), Some(Failure::Skipped));
        let other = Standing { unmet: vec!["/dev/nvidia-nvswitchctl".into()], ..of("inactive", "dead") };
        assert_eq!(failure(&other, 0), None, "it has nothing to do on this machine");
        assert_eq!(failure(&of("active", "running"), 0), None);
        let mut masked = of("failed", "failed");
        masked.unit.load = LoadState::Masked;
        assert_eq!(failure(&masked, 0), None);
    }

    #[test]
    fn what_a_failed_service_took_along_has_failed_too() {
        let second = 1_000_000;
        let fabric = Standing { left_usec: 1000 * second, ..standing("fm.service", "failed", "failed") };
        let failed = [(fabric, Failure::Loops)];
        let of = |active: &str, left: u64, requires: &str| {
            let requires = vec![requires.to_owned()];
            failed_with(
                &Standing { requires, left_usec: left * second, ..standing("a.service", active, "") },
                &failed,
            )
        };
        let with = Some(Failure::With("fm.service".to_owned()));
        assert_eq!(of("inactive", 995, "fm.service"), with);
        assert_eq!(of("inactive", 500, "fm.service"), None, "an administrator stopped it");
        assert_eq!(of("inactive", 0, "fm.service"), None, "it never ran");
        assert_eq!(of("inactive", 995, "b.service"), None);
        assert_eq!(of("active", 995, "fm.service"), None);
    }

    #[test]
    fn what_nothing_wants_stays_down() {
        let by = |name: &str, wanted_by: &[&str]| {
            let wanted_by = wanted_by.iter().map(|name| (*name).to_owned()).collect();
            (Standing { wanted_by, ..standing(name, "failed", "failed") }, Failure::Skipped)
        };
        let failed = [
            by("exporter.service", &["dcgm.service"]),
            by("dcgm.service", &["off.target", "multi-user.target"]),
            by("disabled.service", &[]),
            by("off.service", &["off.target", "disabled.service"]),
        ];
        let found = wanted(&failed, |name| Ok(name == "multi-user.target")).expect("is known");
        let names: Vec<&str> = found.iter().map(|(standing, _)| standing.unit.name.as_str()).collect();
        assert_eq!(names, ["exporter.service", "dcgm.service"]);
    }

    #[test]
    fn the_order_is_nvidias() {
        let order =
            ["nvlsm", "nvidia-fabricmanager", "nvidia-imex", "nvidia-persistenced", "nvidia-dcgm", "ollama"];
        let ranks: Vec<usize> = order.iter().map(|name| rank(&format!("{name}.service"))).collect();
        assert_eq!(ranks, [0, 1, 2, 3, 4, 5]);
    }
}
