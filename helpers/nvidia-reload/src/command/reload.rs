// SPDX-License-Identifier: MIT
//! `nvidia-reload reload` and `nvidia-reload reset`.

use bus::Manager;
use step::RunRequest;

use super::propose::{Answer, Next, propose};
use super::run::{Order, ShowPlan, carry_out};
use super::{Place, guard};
use crate::cli::Reload;
use crate::fault::{Fault, Result};
use crate::follow::Goal;
use crate::kind::Kind;
use crate::plan::{Proposal, Question, plan};
use crate::status::{self, State, state};
use crate::target::Target;

/// A reload or a reset, and what comes with it.
pub struct Launch<'a> {
    /// What was typed.
    pub command: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The GPUs of a reset; none for all.
    pub gpus: &'a [String],
    /// What is asked before it begins.
    pub question: String,
    /// The version that the run is asked to put on disk, and what makes that ready while everything still
    /// runs.
    pub exchange: Option<(&'a str, &'a mut Exchange<'a>)>,
}

/// Makes ready what a run is asked to put on disk.
pub type Exchange<'a> = dyn FnMut(&mut Place) -> Result<ledger::Install> + 'a;

/// Shows the plan, asks, and does it: a reload, or a reset of `gpus` or where none is named of all.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn reload(kind: Kind, gpus: &[String], arguments: &Reload, place: &mut Place) -> Result<Answer> {
    let (command, question) = match kind {
        Kind::Reset => ("reset", "Reset the GPUs now?"),
        _ => ("reload", "Reload the driver now?"),
    };
    run(Launch { command, kind, gpus, question: question.to_owned(), exchange: None }, arguments, place)
}

/// Shows the plan, asks, and starts the run.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn run(launch: Launch<'_>, arguments: &Reload, place: &mut Place) -> Result<Answer> {
    guard::root(launch.command)?;
    let consent = arguments.consent;
    // A plan alone is whole: what would refuse it here is among its reasons.
    let (manager, joined) = match consent.dry_run {
        true => (None, false),
        false => {
            let (manager, joined) = admit(&launch, place)?;
            (Some(manager), joined)
        }
    };
    let Launch { command, kind, gpus, question, exchange } = launch;
    let mut shown = None;
    // What asks nothing first is shown the plan of the run itself. What makes another driver ready takes minutes, and
    // which GPUs a reset of some is of is in its plan.
    if !joined && (!consent.yes || exchange.is_some() || !gpus.is_empty()) {
        let wanted = Question {
            reset: (kind == Kind::Reset).then_some(gpus),
            exchange: exchange.as_ref().map(|(version, _)| *version),
            if_idle: arguments.if_idle,
        };
        let proposal = Proposal::new(&place.root, kind, plan(&place.root, wanted)?);
        match propose(proposal, command, &question, consent, place)? {
            Next::Go(proposal) => shown = Some(proposal),
            Next::End(answer) => return Ok(answer),
        }
    }
    let Some(manager) = manager else { return Err(Fault::refused("a plan is all that was asked for", "")) };
    let install = exchange.map(|(_, prepare)| prepare(place)).transpose()?;
    let reset = (kind == Kind::Reset && !joined).then(|| gpus.to_vec());
    let if_idle = arguments.if_idle && !joined;
    let target = kind.target();
    let order = Order {
        command,
        kind,
        asked: Goal::Reload,
        unit: target.unit(),
        start: true,
        steps: target.steps(),
        request: RunRequest { reset, install, if_idle, hold: false },
        plan: ShowPlan::UnlessShown(shown),
        staying: &[],
        joined,
        wait: !arguments.no_wait,
    };
    carry_out(&order, &manager, place).map(Into::into)
}

/// Whether it may begin as the machine is, or joins the run that is under way.
fn admit(launch: &Launch<'_>, place: &mut Place) -> Result<(Manager, bool)> {
    guard::switched_on(&place.root)?;
    let (manager, units) = guard::systemd(&mut place.terminal)?;
    let joined = match state(&units) {
        stopped @ (State::Drained | State::Offline) => {
            let (word, holds) = match stopped {
                State::Drained => ("drained", Target::Drained),
                _ => ("offline", Target::Offline),
            };
            return Err(Fault::refused(
                format!("the machine is {word} ({} is active); nothing was touched", holds.unit()),
                "`nvidia-reload start` restarts the workloads, with the driver that is on disk then",
            ));
        }
        State::Busy | State::Restoring if launch.exchange.is_some() => {
            return Err(Fault::refused(
                "another run is under way; nothing was touched",
                "`nvidia-reload status` shows how far it is; try again when it has ended",
            ));
        }
        State::Busy => status::is_started(&manager, launch.kind.target())?,
        _ => false,
    };
    if joined && !launch.gpus.is_empty() {
        return Err(Fault::refused(
            "a reset is under way, and not known to be of those GPUs; nothing was begun",
            "`nvidia-reload status` shows how far it is; try again when it has ended",
        ));
    }
    Ok((manager, joined))
}
