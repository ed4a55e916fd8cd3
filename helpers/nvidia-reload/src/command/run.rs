// SPDX-License-Identifier: MIT
//! One run, from the start of a unit to the last thing restored.

use bus::{Job, JobResult, Manager};
use holders::{Guest, Scope};
use ledger::{Ledger, Node, Run, Step};
use modules::{DRIVER, driver_version, nodes};
use step::{Exit, Plan, Reason, Root, RunRequest, Versions, announce_start, monotonic_usec, withdraw_start};

use super::{Place, caller};
use crate::fault::{Fault, Result};
use crate::follow::{Event, Facts, Goal, Phase, PlanOfRun, Progress, Session, Wait, outcome};
use crate::kind::Kind;
use crate::plan::Proposal;
use crate::put_back::PutBack;
use crate::report::{Outcome, Report};
use crate::status::versions;

/// What is to be done.
pub struct Order<'a> {
    /// What was typed.
    pub command: &'static str,
    /// What its plan is of.
    pub kind: Kind,
    /// What for.
    pub asked: Goal,
    /// The unit, and whether it is started or stopped.
    pub unit: &'a str,
    /// Whether `unit` is started; else it is stopped.
    pub start: bool,
    /// The steps to look at.
    pub steps: &'a [Step],
    /// What the run is to do beyond a reload.
    pub request: RunRequest,
    /// Whether the plan of the run is shown.
    pub plan: ShowPlan,
    /// The steps that another target keeps, whatever becomes of this run.
    pub staying: &'a [Step],
    /// Whether the run is under way already.
    pub joined: bool,
    /// Whether to look on to the end.
    pub wait: bool,
}

/// Whether the plan of a run is shown, once preflight has made it.
pub enum ShowPlan {
    /// It is not.
    Never,
    /// It is, unless it is the one that was shown before.
    UnlessShown(Option<Box<Proposal>>),
}

/// The ledger as it was before, so that the run that comes is known when it is there.
struct Before {
    open: Option<String>,
    closed: Option<String>,
}

impl Before {
    fn read(ledger: &Ledger) -> Result<Self> {
        let id = |run: Option<Run>| run.map(|run| run.id);
        Ok(Self { open: id(ledger.read()?), closed: id(ledger.last_closed()?) })
    }

    /// The run of this order: one that is new, or the one that was open when it came.
    fn run(&self, ledger: &Ledger, order: &Order<'_>) -> Result<Option<Run>> {
        let goes_on = order.joined || order.asked == Goal::Restore || !order.staying.is_empty();
        let is_ours = |run: &Run| goes_on || Some(&run.id) != self.open.as_ref();
        if let Some(run) = ledger.read()?.filter(is_ours) {
            return Ok(Some(run));
        }
        Ok(ledger.last_closed()?.filter(|run| Some(&run.id) != self.closed.as_ref()).filter(is_ours))
    }
}

/// Carries out `order` and tells how it ended.
///
/// # Errors
/// systemd refuses to begin, or is lost on the way: then the run goes on without this command.
pub fn carry_out(order: &Order<'_>, manager: &Manager, place: &mut Place) -> Result<Report> {
    let ledger = step::open_ledger(&place.root)?;
    // One that others could have written is not believed: then nothing is begun.
    let before = Before::read(&ledger).map_err(|fault| Fault { exit: Exit::Refused as u8, ..fault })?;
    let driver = versions(&place.root)?;
    let began = monotonic_usec();
    // The steps of a run that is under way began earlier; what is older than its first is stale.
    let since = match order.joined || !order.start || !order.staying.is_empty() {
        true => manager.service(&Step::Preflight.unit())?.started_usec,
        false => began,
    };
    let phase = match (order.start, order.asked) {
        (_, Goal::Restore) => Phase::Restoring,
        (true, _) => Phase::Forward,
        (false, _) => Phase::RollingBack,
    };
    place.interrupt.run_begins();
    let mut session =
        Session::open(manager, order.steps, phase, since, &mut place.terminal, &place.interrupt)?;
    if let ShowPlan::UnlessShown(shown) = &order.plan {
        let shown = shown.as_deref();
        session.shows(PlanOfRun { root: &place.root, command: order.kind, since_usec: since, shown });
    }
    if order.joined {
        session.tell(&Event::Joined);
        session.show_plan();
    }
    let job = match order.start {
        true => begin(&mut session, order, &place.root)?,
        false => session.stop(order.unit)?,
    };
    let mut report = Report::new(order.command, Outcome::Started, order.unit);
    report.joined = order.joined;
    if !order.wait {
        return Ok(Report { before: driver.clone(), after: driver, ..report });
    }
    let ended = follow(&mut session, &job, order, &ledger).map_err(|fault| lost(fault, order))?;
    let progress = session.end();
    let (facts, at) = match ended {
        Ended::Interrupted => {
            report = Report::new(order.command, Outcome::Interrupted, order.unit);
            report.seconds = (monotonic_usec() - began) as f64 / 1e6;
            return Ok(Report {
                before: driver,
                after: versions(&place.root)?,
                ..report.with_progress(&progress)
            });
        }
        Ended::Facts { job, settled, at } => {
            let facts = Facts {
                asked: order.asked,
                job,
                settled,
                exit: progress.failed().and_then(|step| step.exit_status),
                run: before.run(&ledger, order)?,
                staying: !order.staying.is_empty(),
            };
            (facts, at)
        }
    };
    let report = tell(&facts, order, (began, at), driver, &progress, place);
    if matches!(report.outcome, Outcome::Refused | Outcome::RebootRequired) && facts.run.is_none() {
        // The caller gets the error. A unit that stays failed would be for somebody who looks for faults; where it
        // cannot be reset, it stays so.
        let _ = manager.reset_failed(&Step::Preflight.unit());
    }
    Ok(report)
}

/// Starts the unit, after whatever an earlier run still restores: a start in the middle of it
/// would run only the steps that are undone already.
fn begin(session: &mut Session<'_>, order: &Order<'_>, root: &Root) -> Result<Job> {
    if !order.joined && !session.progress.is_settled(order.staying) {
        session.tell(&Event::Queued);
        if session.settle(order.staying)? != Wait::For(()) {
            return Err(Fault::refused(
                "an earlier run has not ended; nothing was begun",
                "`nvidia-reload status` shows how far it is",
            ));
        }
        session.restart();
    }
    if order.asked != Goal::Restore && !order.joined {
        caller::protect(&scope(order, root)?, root)?;
    }
    // Only now: an earlier run's preflight takes away what it finds. Somebody else's request is not replaced,
    // and stays.
    let asked = order.request.ask(root).map_err(|error| {
        let remedy = "try again once that run has begun; `nvidia-reload status` shows what is going on";
        Fault::refused("the request for the run cannot be written; nothing was started", remedy)
            .because(&*error)
    })?;
    // Only the record of the run would have it: no reason not to begin.
    let announced = announce_start(root, order.command);
    session.start(order.unit).map_err(|error| {
        let mut fault = Fault::from(error);
        if announced.is_ok()
            && let Err(error) = withdraw_start(root)
        {
            fault.causes.push(format!("the next run may be recorded as started by this command: {error:#}"));
        }
        // The run takes what it was asked for; where none began, it must not stay for the next one.
        if asked && let Err(error) = RunRequest::withdraw(root) {
            fault.causes.push(format!("the next run does what this one was asked for: {error:#}"));
        }
        fault
    })
}

/// The GPUs whose users the run stops: of a reset, those of its plan, which has also those that go along.
fn scope(order: &Order<'_>, root: &Root) -> Result<Scope> {
    let of_some = order.request.reset.as_ref().is_some_and(|gpus| !gpus.is_empty());
    match &order.plan {
        ShowPlan::UnlessShown(Some(shown)) if of_some => caller::scope(&shown.plan, root),
        _ => Ok(Scope::default()),
    }
}

enum Ended {
    Interrupted,
    /// With the time at which all was done: what is left then is to let go of the units.
    Facts {
        job: Option<JobResult>,
        settled: bool,
        at: u64,
    },
}

fn follow(session: &mut Session<'_>, job: &Job, order: &Order<'_>, ledger: &Ledger) -> Result<Ended> {
    let result = match session.wait(job)? {
        Wait::For(result) => result,
        Wait::Interrupted => return Ok(Ended::Interrupted),
        Wait::Late => return Ok(Ended::Facts { job: None, settled: false, at: monotonic_usec() }),
    };
    let at = monotonic_usec();
    if order.asked == Goal::Stop && result.is_success() {
        return Ok(Ended::Facts { job: Some(result), settled: true, at });
    }
    let is_done = order.start && result.is_success();
    let at = move || if is_done { at } else { monotonic_usec() };
    if order.start && order.asked != Goal::Restore {
        // After the commit the driver stays: what is left is to let go of the units.
        let committed = result.is_success() || ledger.read()?.is_some_and(|run| run.committed);
        session.enter(if committed { Phase::Closing } else { Phase::RollingBack });
    }
    // What it goes over ends with it, where it goes well.
    let staying = if is_done { &[] } else { order.staying };
    match session.settle(staying)? {
        Wait::For(()) => Ok(Ended::Facts { job: Some(result), settled: true, at: at() }),
        Wait::Interrupted => Ok(Ended::Interrupted),
        Wait::Late => Ok(Ended::Facts { job: Some(result), settled: false, at: at() }),
    }
}

fn tell(
    facts: &Facts,
    order: &Order<'_>,
    (began, at): (u64, u64),
    before: Versions,
    progress: &Progress,
    place: &Place,
) -> Report {
    let mut report = Report::new(order.command, outcome(facts), order.unit).with_progress(progress);
    report.joined = order.joined;
    report.seconds = (at - began) as f64 / 1e6;
    report.after = versions(&place.root).unwrap_or_default();
    report.before = before;
    if let Some(run) = &facts.run {
        report = report.with_run(run);
        // Without a driver there is nothing to compare.
        if report.after.loaded.is_some() {
            report.changed = changed(&place.root, run);
            report.stale = stale(&place.root, run);
        }
        // That it cannot be read is said by `status`.
        report.put_back =
            PutBack::read(&place.root).unwrap_or_default().filter(|put_back| put_back.run == run.id);
    }
    if report.outcome == Outcome::Degraded {
        // What neither comes nor goes: a wait for it has no end.
        let stuck = modules::stuck(&place.root).unwrap_or_default();
        if !stuck.is_empty() {
            report.exit = Exit::RebootRequired as u8;
            report.reasons = stuck.into_iter().map(|what| Reason::new(what, "reboot the machine")).collect();
        }
    }
    if facts.run.is_some() && report.outcome == Outcome::Refused {
        // Its own words are the reason, with the remedy.
        let words = progress.failed().map(|step| step.status.clone()).unwrap_or_default();
        report.reasons = vec![Reason::new(words, "")];
    } else if matches!(report.outcome, Outcome::Refused | Outcome::RebootRequired) {
        let journal = format!("`journalctl -u {}` has the reason", Step::Preflight.unit());
        report.reasons = match Plan::of_run(&place.root, began) {
            Ok(Some(plan)) => plan.reasons,
            Ok(None) => vec![Reason::new("preflight left no plan", journal)],
            Err(error) => vec![Reason::new(format!("{error:#}"), journal)],
        };
    }
    report
}

/// The parameters that are not as they were. verify has reported what cannot be read.
fn changed(root: &Root, run: &Run) -> Vec<String> {
    let changed = modules::changed_parameters(root, &run.snapshot.modules).unwrap_or_default();
    changed.iter().map(ToString::to_string).collect()
}

/// The guests that have files of the driver as it was: of another version, or nodes whose numbers have moved.
fn stale(root: &Root, run: &Run) -> Vec<String> {
    const MOST_NAMED: usize = 12;
    let before = run.snapshot.modules.iter().find(|module| module.name == DRIVER);
    let before = before.and_then(|module| module.version.as_deref());
    let now = driver_version(root).unwrap_or_default();
    let nodes = nodes::snapshot(root).unwrap_or_default();
    let is_moved = |was: &Node| nodes.iter().any(|is| is.path == was.path && is.major != was.major);
    let moved = run.snapshot.nodes.iter().any(is_moved);
    if !run.committed || (!moved && before == now.as_deref()) {
        return Vec::new();
    }
    // That it is not known is no part of how the run ended: the plan had them.
    let guests = holders::bystanders(root).unwrap_or_default().guests;
    let is_new = |guest: &Guest| {
        !guest.versions.is_empty() && guest.versions.iter().all(|version| Some(version) == now.as_ref())
    };
    let stale = guests.iter().filter(|guest| moved || !is_new(guest)).take(MOST_NAMED);
    stale.map(|guest| format!("{guest} has {} mounted: {}", guest.has(), guest.remedy())).collect()
}

/// A lost systemd does not end the run.
fn lost(fault: Fault, order: &Order<'_>) -> Fault {
    let mut causes = vec![fault.error];
    causes.extend(fault.causes);
    let error = format!("lost sight of {}: it goes on in systemd", order.unit);
    let remedy = "`nvidia-reload status` shows how far it is";
    Fault { causes, ..Fault::new(Exit::Failed, error, remedy) }
}
