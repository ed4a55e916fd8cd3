// SPDX-License-Identifier: MIT
//! `verify check`: the same comparison without a run, for people and monitors. Changes nothing.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gpu::{Answer, Library, Reading, State};
use ledger::Run;
use messages::{Log, read_log};
use modules::{DRIVER, Disk, chain, driver_version, nodes};
use step::{Check, Grade};
use step::{Context, VERIFIED_SCHEMA, Verified, Verify, Versions};

use crate::gpus::{self, Fabric};
use crate::{gpus_are_there, modules_match, nvml};

/// Prints what is found; with `smoke`, runs the configured test, too.
pub(crate) fn check(context: &Context, smoke: bool) -> Result<ExitCode> {
    println!("{}", serde_json::to_string(&look(context, smoke)?)?);
    Ok(ExitCode::SUCCESS)
}

/// Where the driver works, the lease of the fleet's lock is to be released; where it does not, other machines wait.
pub(crate) fn steady(context: &Context) -> Result<ExitCode> {
    let Some(lease) = fleetlock::read(&context.root)? else { return Ok(ExitCode::SUCCESS) };
    let verified = look(context, false)?;
    if verified.grade > Grade::Note {
        let is_bad = |check: &&Check| check.grade > Grade::Note;
        let why: Vec<String> = verified
            .checks
            .iter()
            .filter(is_bad)
            .map(|check| format!("{}: {}", check.about, check.what))
            .collect();
        bail!("{} is kept, and no other machine of the group begins: {}", lease.name(), why.join("; "));
    }
    if fleetlock::release(context)? {
        context.info(format!("the driver works: {} is released", lease.name()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares what is with what should be.
fn look(context: &Context, smoke: bool) -> Result<Verified> {
    let config = context.config()?;
    let (config, ignore) = (config.verify, config.gpus.ignore);
    let disk = Disk::open(&context.root)?;
    let loaded = driver_version(&context.root)?;
    // Without a driver there is nothing to ask NVML.
    let state = if loaded.is_some() { nvml::ask()? } else { None };
    let run = last_run(context)?;
    let mut checks = vec![modules(context, &disk)?];
    if let Some(run) = &run {
        checks.push(as_before("device nodes", nodes::check(&context.root, &run.snapshot.nodes)));
        checks.push(as_before("PCI devices", gpus_are_there(context, &run.snapshot.gpus)));
    }
    let mut seen = Vec::new();
    if loaded.is_some() {
        let before = run.as_ref().map_or(&[][..], |run| &run.snapshot.seen);
        checks.extend(of_nvml(state.as_ref(), loaded.as_deref()));
        let log = read_log(&context.root).unwrap_or_else(|error| {
            let what = format!("cannot be read: {error:#}");
            checks.push(Check::new("kernel messages", Grade::Note, what));
            Log::default()
        });
        let judged = health::judge(&context.root, &log, state.as_ref(), &ignore)?;
        let answered = state.filter(|state| matches!(state.nvml, Answer::Ok { .. }));
        let before = if answered.is_some() { before } else { &[] };
        seen = answered.map(|state| state.gpus).unwrap_or_default();
        checks.extend(gpus::check(before, &seen, &judged, |_| true, Fabric::Complete));
    }
    if smoke {
        checks.push(smoke_test(&config)?);
    }
    let on_disk = disk.find(DRIVER)?.and_then(|file| file.version);
    Ok(Verified {
        schema: VERIFIED_SCHEMA.into(),
        grade: checks.iter().map(|check| check.grade).max().unwrap_or(Grade::Ok),
        driver: Versions { loaded, on_disk },
        compared_with: run.map(|run| run.id),
        checks,
        gpus: seen
            .into_iter()
            .filter_map(|seen| match seen {
                Reading::Ok(gpu) => Some(*gpu),
                Reading::Trouble { .. } => None,
            })
            .collect(),
    })
}

/// The run that is open, or the last one of this boot: it knows how the machine was.
fn last_run(context: &Context) -> Result<Option<Run>> {
    let open = context.ledger.read()?;
    let run = if open.is_some() { open } else { context.ledger.last_closed()? };
    Ok(run.filter(|run| run.boot == context.ledger.boot()))
}

fn modules(context: &Context, disk: &Disk) -> Result<Check> {
    let loaded = chain(&context.root)?;
    if loaded.is_empty() {
        return Ok(Check::new("modules", Grade::Failed, "the driver is not loaded"));
    }
    let names: Vec<&str> = loaded.iter().map(|module| module.module.name.as_str()).collect();
    Ok(match modules_match(context, names.iter().copied(), disk) {
        Ok(()) => Check::new("modules", Grade::Ok, format!("{} match the disk", names.join(", "))),
        Err(error) => Check::new("modules", Grade::Failed, format!("{error:#}")),
    })
}

fn as_before(about: &str, result: Result<()>) -> Check {
    match result {
        Ok(()) => Check::new(about, Grade::Ok, "as they were before the last run"),
        Err(error) => Check::new(about, Grade::Failed, format!("{error:#}")),
    }
}

fn of_nvml(state: Option<&State>, loaded: Option<&str>) -> Vec<Check> {
    let Some(state) = state else {
        return vec![Check::new("NVML", Grade::Failed, nvml::hung())];
    };
    let library = match &state.library {
        Library::Found { path, version } if version.is_none() || version.as_deref() == loaded => {
            Check::new("library", Grade::Ok, path.display().to_string())
        }
        Library::Found { path, .. } => Check::new(
            "library",
            Grade::Failed,
            format!("{} is of another version than the driver", path.display()),
        ),
        Library::Absent { reason } => {
            return vec![Check::new("library", Grade::Note, format!("it is not installed: {reason}"))];
        }
    };
    let nvml = match nvml::works(&state.nvml) {
        Ok(what) => Check::new("NVML", Grade::Ok, what),
        Err(error) => Check::new("NVML", Grade::Failed, format!("{error:#}")),
    };
    vec![library, nvml]
}

/// Runs the configured test; what it prints goes to standard error.
fn smoke_test(config: &Verify) -> Result<Check> {
    const ABOUT: &str = "smoke test";
    let Some((program, arguments)) = config.smoke.split_first() else {
        return Ok(Check::new(ABOUT, Grade::Note, "none is configured: see verify.smoke"));
    };
    let time = Duration::from_secs(config.smoke_timeout);
    let mut command = Command::new(program);
    command.args(arguments).stdout(std::io::stderr()).process_group(0);
    let status = match bounded::run(&mut command, Instant::now() + time) {
        Ok(status) => status,
        Err(error) => return Ok(Check::new(ABOUT, Grade::Failed, format!("{program}: {error}"))),
    };
    Ok(match (status.code(), status.signal()) {
        (Some(0), _) => Check::new(ABOUT, Grade::Ok, format!("{program} succeeded")),
        (Some(code), _) => Check::new(ABOUT, Grade::Failed, format!("{program} exited with {code}")),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            Check::new(ABOUT, Grade::Failed, format!("{program} was terminated by signal {signal}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grade(smoke: &[&str], smoke_timeout: u64) -> Grade {
        let smoke = smoke.iter().map(ToString::to_string).collect();
        smoke_test(&Verify { smoke, smoke_timeout }).expect("runs").grade
    }

    #[test]
    fn a_smoke_test_counts_by_its_exit_status_and_in_time() {
        assert_eq!(grade(&["/bin/true"], 10), Grade::Ok);
        assert_eq!(grade(&["/bin/false"], 10), Grade::Failed);
        assert_eq!(grade(&["/bin/sh", "-c", "kill -9 $$"], 10), Grade::Failed);
        assert_eq!(grade(&["/no/such/program"], 10), Grade::Failed);
        assert_eq!(grade(&["/bin/sleep", "60"], 0), Grade::Failed);
        assert_eq!(grade(&[], 10), Grade::Note);
    }
}
