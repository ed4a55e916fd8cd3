// SPDX-License-Identifier: MIT
//! `nvidia-reload stop`.

use ledger::Step;
use step::{Action, Plan, Reason, Root, RunRequest, Verdict};

use super::propose::{Answer, Next, propose};
use super::restore::under_way;
use super::run::{Order, ShowPlan, carry_out};
use super::{Place, guard};
use crate::cli::Stop;
use crate::fault::{Fault, Result};
use crate::follow::Goal;
use crate::kind::Kind;
use crate::plan::{Proposal, Question, plan};
use crate::report::{Outcome, Report};
use crate::status::{self, State, state, versions};
use crate::target::Target;

/// Shows the plan, asks, and stops what holds the GPUs; with `--offline` unloads the driver too.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn stop(arguments: &Stop, place: &mut Place) -> Result<Answer> {
    guard::root("stop")?;
    if !arguments.consent.dry_run {
        guard::switched_on(&place.root)?;
    }
    let (manager, units) = guard::systemd(&mut place.terminal)?;
    let (kind, question) = match arguments.offline {
        true => (Kind::StopOffline, "Stop these and unload the driver now?"),
        false => (Kind::Stop, "Stop these now?"),
    };
    let target = kind.target();
    let mut staying: &[Step] = &[];
    match (state(&units), target) {
        (State::Offline, Target::Drained) => {
            place
                .terminal
                .note("The machine is offline already: workloads are stopped and the driver is unloaded.\n");
            return Ok(Report::new("stop", Outcome::NothingToDo, Target::Offline.unit()).into());
        }
        (State::Offline, _) | (State::Drained, Target::Drained) => {
            return Ok(Report::new("stop", Outcome::NothingToDo, target.unit()).into());
        }
        (State::Drained, _) => staying = Target::Drained.steps(),
        (State::Busy, _) => {
            if let Some(target) = under_way(&manager)? {
                return Err(Fault::refused(
                    format!("a run is under way ({}); nothing was touched", target.unit()),
                    "`nvidia-reload status` shows how far it is; try again when it has ended",
                ));
            }
        }
        _ => {}
    }
    // A plan alone joins nothing.
    let joined =
        !arguments.consent.dry_run && state(&units) == State::Busy && status::is_started(&manager, target)?;
    let mut shown = ShowPlan::UnlessShown(None);
    // What asks nothing is shown the plan of the run itself, but of a drained machine, whose plan was made before.
    if !joined && (!arguments.consent.yes || !staying.is_empty()) {
        let plan = match staying.is_empty() {
            true => plan(&place.root, Question::default())?,
            false => unload(&place.root)?,
        };
        let proposal = Proposal::new(&place.root, kind, plan);
        match propose(proposal, "stop", question, arguments.consent, place)? {
            Next::Go(_) if !staying.is_empty() => shown = ShowPlan::Never,
            Next::Go(proposal) => shown = ShowPlan::UnlessShown(Some(proposal)),
            Next::End(answer) => return Ok(answer),
        }
    }
    let order = Order {
        command: "stop",
        kind,
        asked: Goal::Stop,
        unit: target.unit(),
        start: true,
        steps: target.steps(),
        request: RunRequest::default(),
        plan: shown,
        staying,
        joined,
        wait: true,
    };
    carry_out(&order, &manager, place).map(Into::into)
}

/// What is left to do where the workloads are stopped: the modules are unloaded. What holds the driver again
/// is not stopped, and would fail it.
fn unload(root: &Root) -> Result<Plan> {
    let mut plan = Plan { verdict: Verdict::Ready, driver: versions(root)?, ..Plan::refused(Vec::new()) };
    let scan = holders::scan(root).map_err(|error| {
        Fault::refused("what holds the driver cannot be read; nothing was touched", "").because(&error)
    })?;
    for module in &scan.modules {
        plan.modules.push(module.name.clone());
        plan.actions.push(Action {
            step: Step::RmmodChain,
            object: format!("module {}", module.name),
            what: "unload".into(),
            why: String::new(),
            pids: Vec::new(),
            comes_back: true,
        });
    }
    for holder in &scan.holders {
        let who = format!("process {} ({})", holder.pid, holder.command_line());
        plan.warnings.push(Reason::new(
            format!("{who} holds the driver since the workloads were stopped, and is not stopped now"),
            "stop it first: else the driver is not unloaded",
        ));
    }
    Ok(plan)
}
