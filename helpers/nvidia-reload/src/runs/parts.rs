// SPDX-License-Identifier: MIT
//! The parts of a run, with the times that its record has.

use ledger::{Event, Object, Recorded, State, Step};

use super::{StepTime, Terminated, Workload, between};

/// The steps with their times. A step that failed wrote only when: it began when the one before it had ended.
pub(super) fn steps(recorded: &Recorded) -> Vec<StepTime> {
    let mut steps: Vec<StepTime> = Vec::new();
    let mut last_usec = recorded.run.opened_usec;
    for record in &recorded.records {
        let at = record.realtime_usec;
        let (step, began_usec, result) = match &record.event {
            Event::StepDone { step, began_usec } => (*step, *began_usec, "done"),
            // What differs at the end is no step.
            Event::StepFailed { step: Step::Rollback, .. } => continue,
            Event::StepFailed { step, cancelled: true, .. } => (*step, last_usec, "cancelled"),
            Event::StepFailed { step, .. } => (*step, last_usec, "failed"),
            _ => continue,
        };
        if result == "done" || !steps.iter().any(|known| known.step == step && known.result == result) {
            steps.push(StepTime { step, began_usec, ended_usec: at, result });
        }
        last_usec = at;
    }
    steps
}

/// Units that the run did not stop have these roles in the ledger.
const NOT_STOPPED: [&str; 2] = ["felled", "fabric"];

pub(super) fn workloads(recorded: &Recorded) -> Vec<Workload> {
    let run = &recorded.run;
    let time = |id: u64, wanted: fn(&Event) -> bool| {
        let of_act = |event: &Event| match event {
            Event::Intent { id: of, .. } | Event::Undone { id: of } => *of == id,
            _ => false,
        };
        let found = recorded.records.iter().find(|record| of_act(&record.event) && wanted(&record.event));
        found.map(|record| record.realtime_usec)
    };
    let mut workloads = Vec::new();
    for act in &run.acts {
        let kind = match &act.object {
            Object::Container(_) => "container",
            Object::Unit(unit) if !NOT_STOPPED.contains(&unit.role.as_str()) => "unit",
            _ => continue,
        };
        let (state, reason) = match &act.state {
            State::Failed(_) => continue,
            State::Undone => ("restored", None),
            State::Lost(reason) | State::UndoFailed(reason) => ("not-restored", Some(reason.clone())),
            State::Intent | State::Done if run.outcome.is_none() => ("stopped", None),
            State::Intent | State::Done => ("not-restored", None),
        };
        let down_usec =
            time(act.id, |event| matches!(event, Event::Intent { .. })).unwrap_or(run.opened_usec);
        let up_usec = time(act.id, |event| matches!(event, Event::Undone { .. }));
        let seconds = up_usec.map(|up| between(down_usec, up));
        workloads.push(Workload {
            kind,
            name: act.object.to_string(),
            down_usec,
            up_usec,
            seconds,
            state,
            reason,
        });
    }
    workloads
}

pub(super) fn terminated(recorded: &Recorded) -> Vec<Terminated> {
    let killed = recorded.run.killed();
    let mut terminated = Vec::new();
    for record in &recorded.records {
        if let Event::Intent { object: Object::Process(process), .. } = &record.event
            && killed.contains(&process)
        {
            terminated.push(Terminated {
                pid: process.pid,
                uid: process.uid,
                command: process.command.clone(),
                at_usec: record.realtime_usec,
            });
        }
    }
    terminated
}
