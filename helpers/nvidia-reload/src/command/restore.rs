// SPDX-License-Identifier: MIT
//! `nvidia-reload start`, `nvidia-reload rollback` and `nvidia-reload recover`: what ends what was begun.

use std::time::{Duration, Instant};

use bus::{ActiveState, Manager};
use ledger::{Object, Run, Step};
use step::{Action, Plan, Reason, Root, RunRequest, Verdict};

use super::propose::{Answer, Next, propose};
use super::run::{Order, ShowPlan, carry_out};
use super::{Place, guard, install};
use crate::cli::{Restart, Rollback};
use crate::fault::{Fault, Result};
use crate::follow::{Event, Goal, Phase, Session, Wait};
use crate::kind::Kind;
use crate::plan::Proposal;
use crate::report::{Outcome, Report};
use crate::status::{self, State, Units, our_units, state, state_of, versions};
use crate::target::Target;

/// Saves the driver to its slot after a run that went well: without that it cannot be rolled back to.
const SAVE: &str = "nvidia-reload-save-driver.service";

/// How long that may take, as its unit says.
const SAVE_TIME: Duration = Duration::from_secs(15 * 60);

/// How long a rollback that finds nothing to do is waited for.
const ROLLBACK_TIME: Duration = Duration::from_secs(60);

/// Restarts what `stop` stopped: an offline machine goes on with the driver that is on disk.
///
/// # Errors
/// Something else is under way, or systemd refuses.
pub fn start(arguments: &Restart, place: &mut Place) -> Result<Answer> {
    guard::root("start")?;
    let (manager, units) = guard::systemd(&mut place.terminal)?;
    if let Some(target) = under_way(&manager)? {
        return Err(Fault::refused(
            format!("a run is under way ({})", target.unit()),
            format!("`systemctl stop {}` cancels it and rolls it back", target.unit()),
        ));
    }
    let stopped = stopped(&manager, &units)?;
    let run = step::open_ledger(&place.root)?.read()?;
    let Some(target) = stopped else {
        return match run {
            Some(run) => Err(Fault::refused(
                format!("nothing is stopped by `nvidia-reload stop`, but run {} is open", run.id),
                "`nvidia-reload recover` restores what it stopped",
            )),
            None => Ok(Report::new("start", Outcome::NothingToDo, Target::Drained.unit()).into()),
        };
    };
    let proposal = restoring(&place.root, Kind::Start, run.as_ref(), target == Target::Offline)?;
    let question = match target {
        Target::Offline => "Load the driver and restart these now?",
        _ => "Restart these now?",
    };
    if let Next::End(answer) = propose(proposal, "start", question, arguments.consent, place)? {
        return Ok(answer);
    }
    match target {
        Target::Offline => go_on(&manager, place),
        _ => leave(target, &manager, place),
    }
    .map(Into::into)
}

/// What is restored of `run`; with `load`, after the driver on disk is loaded.
fn restoring(root: &Root, kind: Kind, run: Option<&Run>, load: bool) -> Result<Proposal> {
    let mut plan = Plan { verdict: Verdict::Ready, driver: versions(root)?, ..Plan::refused(Vec::new()) };
    let restorable = |object: &Object| {
        matches!(object, Object::Container(_) | Object::Unit(_) | Object::Console(_) | Object::Settings(_))
    };
    for act in run.into_iter().flat_map(Run::missing).filter(|act| restorable(&act.object)) {
        plan.actions.push(Action {
            step: act.step,
            object: act.object.to_string(),
            what: "restore".into(),
            why: String::new(),
            pids: Vec::new(),
            comes_back: true,
        });
    }
    plan.actions.sort_by_key(|action| action.step);
    if load {
        let modules = run.into_iter().flat_map(|run| &run.snapshot.modules);
        plan.modules = modules.map(|module| module.name.clone()).collect();
        if plan.driver.on_disk.is_none() {
            plan.warnings.push(Reason::new(
                "no driver is installed for the running kernel: the driver that was loaded before is loaded from its slot",
                "`nvidia-reload slots` shows whether it is whole",
            ));
        }
    }
    for process in run.into_iter().flat_map(Run::killed) {
        plan.warnings.push(Reason::new(
            format!("process {} ({}) was killed and is not restarted", process.pid, process.command),
            "start it again by hand",
        ));
    }
    Ok(Proposal::new(root, kind, plan))
}

/// Goes back to the previous driver, or to another that is in a slot.
///
/// # Errors
/// A run is open or under way, there is no such driver, or systemd refuses.
pub fn rollback(arguments: &Rollback, place: &mut Place) -> Result<Answer> {
    guard::root("rollback")?;
    if arguments.reload.consent.dry_run {
        return install::back_to(arguments.version.as_deref(), &arguments.reload, place);
    }
    guard::switched_on(&place.root)?;
    let manager = at_rest(place)?;
    if let Some(run) = step::open_ledger(&place.root)?.read()? {
        return Err(Fault::refused(
            format!("run {} was interrupted and is open; no driver was changed", run.id),
            "`nvidia-reload recover` ends it and restores what it took; then try again",
        ));
    }
    wait_for_slot(&manager, place)?;
    install::back_to(arguments.version.as_deref(), &arguments.reload, place)
}

/// Ends a run that was interrupted, and restores what it took.
///
/// # Errors
/// The ledger cannot be read, a run is under way, or systemd refuses.
pub fn recover(arguments: &Restart, place: &mut Place) -> Result<Answer> {
    guard::root("recover")?;
    guard::switched_on(&place.root)?;
    let unit = Step::Rollback.unit();
    let manager = at_rest(place)?;
    let Some(run) = step::open_ledger(&place.root)?.read()? else {
        return Ok(Report::new("recover", Outcome::NothingToDo, &unit).into());
    };
    let proposal = restoring(&place.root, Kind::Recover, Some(&run), false)?;
    let question = "End the run and restore these now?";
    if let Next::End(answer) = propose(proposal, "recover", question, arguments.consent, place)? {
        return Ok(answer);
    }
    let order = Order {
        command: "recover",
        kind: Kind::Recover,
        asked: Goal::Restore,
        unit: &unit,
        start: true,
        steps: &[],
        request: RunRequest::default(),
        plan: ShowPlan::Never,
        staying: &[],
        joined: false,
        wait: true,
    };
    carry_out(&order, &manager, place).map(Into::into)
}

/// Waits until no run is under way; one that goes forward, or is held on purpose, is not waited for.
fn at_rest(place: &mut Place) -> Result<Manager> {
    let (manager, units) = guard::systemd(&mut place.terminal)?;
    if let Some(target) = under_way(&manager)? {
        return Err(Fault::refused(
            format!("a run is under way ({}); nothing was touched", target.unit()),
            format!(
                "`systemctl stop {}` cancels it and rolls it back; or try again when it has ended",
                target.unit()
            ),
        ));
    }
    if let Some(target) = stopped(&manager, &units)? {
        let remedy = match target {
            Target::Offline => {
                "`nvidia-reload start` loads the driver on disk; `systemctl stop nvidia-offline.target` loads the one that was loaded before"
            }
            _ => "`nvidia-reload start` restores its workloads; then try again",
        };
        return Err(Fault::refused(
            format!("{} holds the machine; nothing was touched", target.unit()),
            remedy,
        ));
    }
    if state(&units) == State::InService {
        return Ok(manager);
    }
    let steps: Vec<Step> = Step::ALL.into_iter().chain([Step::GpuReset]).collect();
    place.interrupt.run_begins();
    let mut session =
        Session::open(&manager, &steps, Phase::RollingBack, 0, &mut place.terminal, &place.interrupt)?;
    session.tell(&Event::Queued);
    let ended = session.settle(&[])?;
    session.end();
    match ended {
        Wait::For(()) => Ok(manager),
        Wait::Interrupted | Wait::Late => Err(Fault::refused(
            "another run has not ended; nothing was begun",
            "`nvidia-reload status` shows how far it is",
        )),
    }
}

/// Waits until the driver that a run has just loaded is in its slot.
fn wait_for_slot(manager: &Manager, place: &mut Place) -> Result<()> {
    await_end(SAVE, SAVE_TIME, "Waiting until the loaded driver is saved to its slot.", manager, place)
}

/// Waits until the oneshot `unit` does not run; where it does, that is said.
fn await_end(unit: &str, time: Duration, note: &str, manager: &Manager, place: &mut Place) -> Result<()> {
    let has_ended = || -> Result<bool> {
        let units = manager.units(&[unit])?;
        Ok(units.iter().all(|unit| unit.active != ActiveState::Activating))
    };
    if has_ended()? {
        return Ok(());
    }
    place.terminal.note(&format!("{note}\n"));
    let until = Instant::now() + time;
    while !has_ended()? {
        if Instant::now() > until {
            return Err(Fault::refused(
                format!("{unit} has not ended; nothing was begun"),
                format!("`systemctl status {unit}` shows what it does"),
            ));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The target that keeps things stopped, or is about to.
fn stopped(manager: &Manager, units: &Units) -> Result<Option<Target>> {
    for target in [Target::Offline, Target::Drained] {
        if state_of(units, target.unit()) == ActiveState::Active || status::is_started(manager, target)? {
            return Ok(Some(target));
        }
    }
    Ok(None)
}

/// The target that is about to be reached and ends by itself.
pub fn under_way(manager: &Manager) -> Result<Option<Target>> {
    for target in [Target::Reload, Target::Reset] {
        if status::is_started(manager, target)? {
            return Ok(Some(target));
        }
    }
    Ok(None)
}

/// The steps that an offline machine has not done: a reload over its open run. What refuses it leaves the
/// machine offline; what fails ends both targets, with the old driver and the workloads as they were.
fn go_on(manager: &Manager, place: &mut Place) -> Result<Report> {
    guard::switched_on(&place.root)?;
    // What a refused start of another target has left: it looks, and finds nothing to do.
    let note = "Waiting until the rollback has looked whether there is something to do.";
    await_end(&Step::Rollback.unit(), ROLLBACK_TIME, note, manager, place)?;
    if state(&our_units(manager)?) != State::Offline {
        return Err(Fault::refused(
            "the machine is on its way offline or back; nothing was begun",
            "`nvidia-reload status` shows how far it is; try again when it is there",
        ));
    }
    let order = Order {
        command: "start",
        kind: Kind::Start,
        asked: Goal::Reload,
        unit: Target::Reload.unit(),
        start: true,
        steps: Target::Reload.steps(),
        request: RunRequest::default(),
        plan: ShowPlan::Never,
        staying: Target::Offline.steps(),
        joined: false,
        wait: true,
    };
    carry_out(&order, manager, place)
}

/// Stops `target`, whose steps then restore what they took.
fn leave(target: Target, manager: &Manager, place: &mut Place) -> Result<Report> {
    let order = Order {
        command: "start",
        kind: Kind::Start,
        asked: Goal::Restore,
        unit: target.unit(),
        start: false,
        steps: target.steps(),
        request: RunRequest::default(),
        plan: ShowPlan::Never,
        staying: &[],
        joined: false,
        wait: true,
    };
    carry_out(&order, manager, place)
}
