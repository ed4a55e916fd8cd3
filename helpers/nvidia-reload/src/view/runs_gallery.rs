// SPDX-License-Identifier: MIT
//! Runs for the tests of the views.

use jiff::tz::TimeZone;
use ledger::{
    Container, Event, History, Module, Object, Process, Record, Recorded, Run, Snapshot, Starter, Step, Unit,
};
use step::{Entry, Root};

use crate::bundle::{self, Public};
use crate::report::Report;
use crate::runs::{self, Account, List};

const BEGAN: u64 = 1_764_000_000_000_000;

/// The zone of the pages.
pub fn zone() -> TimeZone {
    TimeZone::UTC
}

/// At so many milliseconds after the run began.
pub fn at(milliseconds: u64) -> u64 {
    BEGAN + milliseconds * 1000
}

fn container(name: &str) -> Object {
    Object::Container(Container {
        engine: "docker".into(),
        socket: "/run/docker.sock".into(),
        id: "4f2a91c0b1de77aa00".into(),
        name: name.into(),
        ..Container::default()
    })
}

fn unit(name: &str) -> Object {
    Object::Unit(Unit { name: name.into(), user: None, role: "holder".into() })
}

fn module(version: &str) -> Module {
    Module {
        name: "nvidia".into(),
        version: Some(version.into()),
        srcversion: None,
        parameters: Default::default(),
    }
}

/// A run of which these events happened, each at so many milliseconds.
pub fn recorded(id: &str, events: &[(u64, Event)]) -> Recorded {
    let record = |(time, event): &(u64, Event)| Record {
        v: 1,
        run: id.into(),
        boot: "b7e1f0c2-0000-4000-8000-000000000001".into(),
        realtime_usec: at(*time),
        event: event.clone(),
    };
    let records: Vec<Record> = events.iter().map(record).collect();
    Recorded { run: Run::from_records(&records).expect("adds up"), records }
}

fn opened(command: Option<&str>) -> Event {
    let started_by =
        command.map(|command| Starter { command: command.into(), unit: None, login: Some(1000) });
    Event::Opened {
        snapshot: Box::new(Snapshot {
            modules: vec![module("535.261.03")],
            started_by,
            ..Snapshot::default()
        }),
    }
}

fn done(step: Step, from: u64) -> Event {
    Event::StepDone { step, began_usec: at(from) }
}

/// What all of them begin with: two containers and a unit are stopped, a process is terminated, the driver is out.
fn taking(name: &str, command: &str) -> Vec<(u64, Event)> {
    let process = Process { pid: 4711, start_ticks: 1, uid: 1000, command: command.into() };
    let intent = |id, step, object| Event::Intent { id, step, object };
    vec![
        (400, opened(Some("reload"))),
        (410, done(Step::Preflight, 0)),
        (450, intent(1, Step::DrainContainers, container(name))),
        (450, intent(2, Step::DrainContainers, container("serve"))),
        (1_900, Event::Done { id: 2 }),
        (3_100, Event::Done { id: 1 }),
        (3_120, done(Step::DrainContainers, 430)),
        (3_200, intent(3, Step::StopUnits, unit("nvidia-persistenced.service"))),
        (3_300, Event::Done { id: 3 }),
        (3_310, done(Step::StopUnits, 3_150)),
        (3_400, intent(4, Step::KillHolders, Object::Process(process))),
        (3_600, Event::Lost { id: 4, reason: "it cannot come back".into() }),
        (3_610, done(Step::KillHolders, 3_350)),
        (3_650, done(Step::UnbindVt, 3_630)),
        (3_700, intent(5, Step::RmmodChain, Object::Module(module("535.261.03")))),
        (4_200, Event::Done { id: 5 }),
        (4_210, done(Step::RmmodChain, 3_660)),
        (4_240, done(Step::InstallDriver, 4_220)),
        (4_300, intent(6, Step::ModprobeChain, Object::Module(module("550.163.01")))),
        (5_500, Event::Done { id: 6 }),
        (5_520, done(Step::ModprobeChain, 4_250)),
    ]
}

fn good() -> Recorded {
    let mut events = taking("train", "/opt/train/bin/worker");
    events.extend([
        (6_000, Event::Committed),
        (6_010, done(Step::Verify, 5_530)),
        (6_300, Event::Undone { id: 3 }),
        (6_900, Event::Undone { id: 1 }),
        (7_000, Event::Undone { id: 2 }),
        (7_010, done(Step::Restore, 6_050)),
        (7_900, Event::Closed { outcome: ledger::Outcome::Done }),
    ]);
    recorded("7d1c0b5e-0000-4000-8000-000000000001", &events)
}

fn failed_with(name: &str, command: &str, reason: &str) -> Recorded {
    let mut events = taking(name, command);
    events.extend([
        (7_400, Event::StepFailed { step: Step::Verify, reason: reason.into(), cancelled: false }),
        (8_400, Event::Undone { id: 6 }),
        (9_600, Event::Undone { id: 5 }),
        (10_200, Event::Undone { id: 3 }),
        (11_000, Event::Undone { id: 2 }),
        (11_900, Event::UndoFailed { id: 1, reason: "port 8080 is already allocated".into() }),
        (12_100, Event::Closed { outcome: ledger::Outcome::Degraded }),
    ]);
    recorded("3f2a91c0-0000-4000-8000-000000000002", &events)
}

const REASON: &str =
    "GPU 0 (0000:3b:00.0) is on the bus, and NVML does not show it: the new driver does not support it";

fn failed() -> Recorded {
    failed_with("train", "/usr/bin/python3 train.py --token=s3cret", REASON)
}

fn entry(milliseconds: u64, unit: &str, priority: u8, message: &str) -> Entry {
    Entry {
        at_usec: at(milliseconds),
        unit: unit.into(),
        priority,
        message: message.into(),
        message_id: None,
    }
}

fn with_journal(mut account: Account, reason: &str) -> Account {
    account.journal = vec![
        entry(
            405,
            "nvidia-reload-preflight.service",
            5,
            "run 3f2a91c0: driver 535.261.03 is loaded, 550.163.01 is on disk",
        ),
        entry(
            3_610,
            "nvidia-reload-kill-holders.service",
            5,
            "terminated process 4711 of user alice (python3)",
        ),
        entry(5_510, "nvidia-reload-modprobe-chain.service", 5, "loaded 4 modules of version 550.163.01"),
        entry(7_400, "nvidia-reload-verify.service", 3, reason),
        entry(
            11_900,
            "nvidia-reload-drain-containers.service",
            4,
            "not restored: docker container train (4f2a91c0b1de): port 8080 is already allocated",
        ),
    ];
    account.kernel_log = vec![
        entry(4_400, "kernel", 5, "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  550.163.01"),
        entry(
            5_000,
            "kernel",
            3,
            "NVRM: The NVIDIA GPU 0000:3b:00.0 is not supported by the 550.163.01 driver release.",
        ),
    ];
    account
}

fn fixture() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    std::fs::create_dir(root.path("/etc")).expect("creates");
    std::fs::write(root.path("/etc/passwd"), "alice:x:1000:1000::/home/alice:/bin/sh\n").expect("writes");
    (directory, root)
}

fn account_of(recorded: &Recorded) -> Account {
    let (_directory, root) = fixture();
    runs::account(&root, recorded)
}

/// A run that failed at verify, and of which one container is not restored.
pub fn account() -> Account {
    with_journal(account_of(&failed()), REASON)
}

/// How that ended.
pub fn ended() -> Report {
    runs::as_report(&failed())
}

/// A good run.
pub fn good_account() -> Account {
    account_of(&good())
}

/// How that ended.
pub fn good_ended() -> Report {
    runs::as_report(&good())
}

/// A run as it may be handed on: `failed`, `good`, or `hostile`, of which every name was chosen by somebody who means
/// ill.
pub fn public(which: &str) -> Public {
    let odd = "<script>alert(1)</script>\"' onload=\"x\" <img src=x>\x1b[2J\u{202e}javascript:x\"";
    let (recorded, account) = match which {
        "good" => (good(), good_account()),
        "hostile" => {
            let recorded = failed_with(odd, odd, odd);
            let account = with_journal(account_of(&recorded), odd);
            (recorded, Account { unseen: vec![odd.into()], ..account })
        }
        _ => (failed(), account()),
    };
    bundle::public(&account, &recorded).expect("is made")
}

/// Several runs.
pub fn history() -> List {
    let (_directory, root) = fixture();
    let stopped = recorded("11c0ffee-0000-4000-8000-000000000003", &{
        let mut events = taking("train", "x");
        events.truncate(11);
        events[0].1 = opened(None);
        events.push((9_000, Event::Undone { id: 1 }));
        events
    });
    let runs = vec![stopped, failed(), good()];
    let unreadable = vec!["/var/lib/nvidia-reload/history/x.jsonl: a later version wrote this".to_owned()];
    runs::list(&root, &History { runs, unreadable })
}

/// As the ledger has them, the failed one first.
pub fn on_record() -> History {
    History { runs: vec![failed(), good()], unreadable: Vec::new() }
}
