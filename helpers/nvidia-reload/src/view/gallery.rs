// SPDX-License-Identifier: MIT
//! Data for the tests of the views, and all views at once for the eyes:
//! `cargo test -p nvidia-reload gallery -- --ignored --nocapture`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{ActiveState, Service, UnitChange};
use ledger::{Event, Object, Record, Run, Snapshot, Starter, Step};
use step::Versions;

use super::Style;
use crate::fault::Fault;
use crate::follow::{Phase, Progress};
use crate::kind::Kind as Command;
use crate::report::{Outcome, Report};

mod machine;
mod plans;

pub use machine::{busy_server, drained_for_a_user};
pub use plans::{proposed, ready_plan, refused_plan, restoring_plan};

/// The moment at which the pages are read.
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_764_000_000)
}

/// A closed run: with a container that is back, a process that was ended, and, if `failed`, a
/// failed step and a container that is not restored.
pub fn run(failed: bool) -> Run {
    let container = |name: &str| {
        Object::Container(ledger::Container {
            engine: "docker".into(),
            socket: "/run/docker.sock".into(),
            id: "4f2a91c0b1de77aa00".into(),
            name: name.into(),
            ..ledger::Container::default()
        })
    };
    let process = Object::Process(ledger::Process {
        pid: 5151,
        start_ticks: 1,
        uid: 1000,
        command: "sleep\\n 1000".into(),
    });
    let mut events = vec![
        Event::Opened {
            snapshot: Box::new(Snapshot {
                started_by: Some(Starter { command: "reload".into(), unit: None, login: Some(1000) }),
                ..Snapshot::default()
            }),
        },
        Event::Intent { id: 1, step: Step::DrainContainers, object: container("train") },
        Event::Done { id: 1 },
        Event::Intent { id: 2, step: Step::KillHolders, object: process },
        Event::Done { id: 2 },
    ];
    if failed {
        events.extend([
            Event::Intent { id: 3, step: Step::DrainContainers, object: container("serve") },
            Event::Done { id: 3 },
            Event::StepFailed {
                step: Step::RmmodChain,
                reason: "nvidia_uvm is in use: 2 references, of which 0 by other modules".into(),
                cancelled: false,
            },
            Event::UndoFailed { id: 3, reason: "driver failed programming external connectivity".into() },
        ]);
    }
    events.push(Event::Undone { id: 1 });
    let outcome = if failed { ledger::Outcome::Degraded } else { ledger::Outcome::Done };
    events.push(Event::Closed { outcome });
    let records: Vec<Record> = events
        .into_iter()
        .map(|event| Record {
            v: 1,
            run: "7d1c0b5e-0000-4000-8000-000000000001".into(),
            boot: "b".into(),
            realtime_usec: 1_763_999_700_000_000,
            event,
        })
        .collect();
    Run::from_records(&records).expect("adds up")
}

/// A unit of `step` that is in `active`, began at `from` and ended at `to`, in seconds.
pub fn look(
    progress: &mut Progress,
    step: Step,
    active: ActiveState,
    from: u64,
    to: u64,
    status: i32,
    at: u64,
) {
    let service = Service {
        result: if status == 0 { "success".into() } else { "exit-code".into() },
        status_text: String::new(),
        main_pid: 0,
        started_usec: from,
        exited_usec: to,
        code: 1,
        status,
    };
    progress.look(&step.unit(), active, &service, at);
}

/// Begun at second 1: preflight done, drain-containers at work.
pub fn under_way() -> Progress {
    let mut steps = Step::ALL.to_vec();
    steps.push(Step::Rollback);
    let mut progress = Progress::new(&steps, Phase::Forward, 1_000_000);
    look(&mut progress, Step::Preflight, ActiveState::Active, 1_000_000, 1_240_000, 0, 1_240_000);
    look(&mut progress, Step::DrainContainers, ActiveState::Activating, 1_250_000, 0, 0, 1_250_000);
    let says = "stopping docker container train (4f2a91c0b1de), 3 of 5 containers are stopped by now";
    let change = UnitChange { status_text: Some(says.into()), ..UnitChange::default() };
    progress.change(&Step::DrainContainers.unit(), &change, 1_250_000);
    progress
}

/// The same run later: rmmod-chain failed and has restored its part, kill-holders is restoring.
pub fn rolling_back() -> Progress {
    use ActiveState::{Activating, Active, Deactivating, Failed};
    let mut progress = under_way();
    look(&mut progress, Step::DrainContainers, Active, 1_250_000, 4_350_000, 0, 4_350_000);
    for step in [Step::StopUnits, Step::KillHolders, Step::UnbindVt] {
        look(&mut progress, step, Active, 4_400_000, 4_500_000, 0, 4_500_000);
    }
    look(&mut progress, Step::RmmodChain, Activating, 4_600_000, 0, 0, 4_600_000);
    look(&mut progress, Step::RmmodChain, Deactivating, 4_600_000, 6_600_000, 1, 6_600_000);
    progress.phase = Phase::RollingBack;
    look(&mut progress, Step::RmmodChain, Failed, 4_600_000, 6_600_000, 1, 6_900_000);
    look(&mut progress, Step::UnbindVt, Deactivating, 4_400_000, 4_500_000, 0, 6_900_000);
    look(&mut progress, Step::UnbindVt, ActiveState::Inactive, 4_400_000, 4_500_000, 0, 6_950_000);
    look(&mut progress, Step::KillHolders, Deactivating, 4_400_000, 4_500_000, 0, 6_950_000);
    progress
}

/// The end of a good reload, or of one that failed and left something behind.
pub fn report(failed: bool) -> Report {
    let outcome = if failed { Outcome::Degraded } else { Outcome::Done };
    let loaded =
        |version: &str| Versions { loaded: Some(version.to_owned()), on_disk: Some("550.163.01".into()) };
    let report = Report {
        before: loaded("535.261.03"),
        after: loaded(if failed { "535.261.03" } else { "550.163.01" }),
        seconds: 4.24,
        ..Report::new("reload", outcome, "nvidia-reload.target")
    };
    report.with_progress(&if failed { rolling_back() } else { under_way() }).with_run(&run(failed))
}

#[test]
#[ignore = "for the eyes"]
fn gallery() {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(100);
    let style = Style { colour: true, width: Some(columns), ..Style::PLAIN };
    let show = |title: &str, text: String| println!("\n\x1b[7m {title} \x1b[0m\n{text}");
    show("status", super::status::status(&busy_server(), style, now()));
    show("status, drained, not root", super::status::status(&drained_for_a_user(), style, now()));
    show("plan", super::plan::plan(&proposed(Command::Reload, ready_plan()), style));
    show("plan, refused", super::plan::plan(&proposed(Command::Reload, refused_plan()), style));
    for (title, progress) in [("under way", under_way()), ("rolling back", rolling_back())] {
        let mut lines = super::live::picture(&progress, style, 7_300_000);
        lines.push(super::live::footer(&progress, style));
        show(title, lines.join("\n") + "\n");
    }
    show("done", super::report::report(&report(false), style));
    show("degraded", super::report::report(&report(true), style));
    let fault = Fault::refused("`nvidia-reload reload` needs root; nothing was touched", "try sudo")
        .because(&std::io::Error::from_raw_os_error(1));
    show("error", super::report::fault(&fault, style));
}
