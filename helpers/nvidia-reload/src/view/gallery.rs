// SPDX-License-Identifier: MIT
//! Data for the tests of the views, and all views at once for the eyes:
//! `cargo test -p nvidia-reload gallery -- --ignored --nocapture`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{ActiveState, Service, UnitChange};
use gpu::Memory;
use holders::{
    Console, Container, Device, Engine, Holder, Kind, Module, Owner, Place, Rdev, Unexplained, Via,
};
use initramfs::Packed;
use ledger::{Event, Object, Record, Run, Snapshot, Starter, Step};
use request::Request;
use step::{Action, Plan, Reason, Root, Verdict, Versions};
use xid::Class;

use super::Style;
use crate::expected::{Expected, Took};
use crate::fault::Fault;
use crate::follow::{Phase, Progress};
use crate::gpus::{Detail, Need};
use crate::kind::Kind as Command;
use crate::plan::Proposal;
use crate::put_back::PutBack;
use crate::report::{Outcome, Report};
use crate::status::{Driver, Gate, Gpu, Initramfs, RunInShort, Runs, SCHEMA, State, Status};
use crate::users::Users;

/// The moment at which the pages are read.
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_764_000_000)
}

fn device(kind: Kind, name: &str, via: Via) -> Device {
    let rdev = Some(Rdev { major: 195, minor: 0 });
    let path = format!("/dev/{name}");
    Device { rdev, kind, name: name.into(), module: "nvidia".into(), via, count: 1, path }
}

fn holder(pid: i32, user: Option<&str>, command: &[&str], owner: Owner, memory: Option<u64>) -> Holder {
    Holder {
        pid,
        start_ticks: 100,
        since: Some(1_763_990_000),
        uid: 1000,
        user: user.map(Into::into),
        comm: "python3".into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        state: 'S',
        devices: vec![
            device(Kind::Ctl, "nvidiactl", Via::Fd),
            device(Kind::Gpu, "nvidia0", Via::Fd),
            device(Kind::Uvm, "nvidia-uvm", Via::Fd),
            device(Kind::Gpu, "nvidia0", Via::Map),
        ],
        owner,
        screen: false,
        gpu_memory: memory,
    }
}

fn modules() -> Vec<Module> {
    let module = |name: &str, refcount, dependents: &[&str], of_driver| Module {
        name: name.into(),
        refcount: Some(refcount),
        dependents: dependents.iter().map(|name| (*name).to_owned()).collect(),
        of_driver,
    };
    vec![
        module("gdrdrv", 0, &[], false),
        module("nvidia_drm", 0, &[], true),
        module("nvidia_modeset", 1, &["nvidia_drm"], true),
        module("nvidia_uvm", 4, &[], true),
        module("nvidia", 27, &["gdrdrv", "nvidia_modeset", "nvidia_uvm"], true),
    ]
}

fn gpu(index: u32, class: Class, why: &[&str]) -> Gpu {
    let pci = if index == 0 { "0000:3b:00.0" } else { "0000:af:00.0" };
    let why = why.iter().map(|why| (*why).to_owned()).collect();
    let memory = Memory { pci: pci.into(), used: 12_670_000_000, total: 85_520_809_984 };
    Gpu {
        need: Need { pci: Some(pci.into()), class, why },
        detail: Detail {
            index: Some(index),
            minor: Some(index),
            uuid: Some(format!("GPU-51a1e00{index}-0000-4000-8000-000000000000")),
            name: Some("NVIDIA H100 80GB HBM3".into()),
            memory: Some(memory),
        },
    }
}

/// A server in use, with a newer driver on disk.
pub fn busy_server() -> Status {
    let docker = Owner::Container(Container {
        engine: Engine::Docker,
        id: "4f2a91c0b1de77aa00".into(),
        uid: None,
        unit: None,
        group: String::new(),
        pod: None,
    });
    let persistenced =
        Owner::SystemUnit { unit: "nvidia-persistenced.service".into(), slice: "system.slice".into() };
    let mut stealthy = holder(90210, None, &["./a\\x1b[2Jb", "--quiet\\n"], Owner::Process, None);
    stealthy.devices = vec![device(Kind::Ctl, "nvidiactl", Via::ThreadFd)];
    let mut daemon =
        holder(811, Some("nvidia-persistenced"), &["/usr/bin/nvidia-persistenced"], persistenced, None);
    daemon.devices.truncate(1);
    Status {
        schema: SCHEMA,
        driver: Driver {
            loaded: Some("535.261.03".into()),
            on_disk: Some("550.163.01".into()),
            mismatch: Some(true),
            present: true,
            library: Some("550.163.01".into()),
            ..Driver::default()
        },
        state: State::InService,
        targets: Some([("nvidia-reload.target", "inactive".to_owned())].into()),
        gate: Gate::default(),
        modules: modules(),
        gpus: vec![
            gpu(0, Class::Info, &[]),
            gpu(1, Class::Reset, &["GPU 1 (0000:af:00.0): NVML says that the GPU has to be reset"]),
        ],
        holders: vec![
            daemon,
            holder(
                4242,
                Some("root"),
                &["python3", "train.py", "--epochs", "100", "--data", "/srv/data/imagenet", "--resume"],
                docker,
                Some(12_670_000_000),
            ),
            holder(
                5150,
                Some("alice"),
                &["/opt/conda/bin/python", "-m", "ipykernel_launcher"],
                Owner::SlurmStep { job: "812".into(), step: "0".into() },
                Some(512 << 20),
            ),
            stealthy,
        ],
        consoles: vec![Console {
            name: "vtcon1".into(),
            driver: "(M) frame buffer device".into(),
            framebuffers: vec!["fb0".into()],
        }],
        unexplained: vec![Unexplained {
            module: "nvidia".into(),
            references: 3,
            places: vec![Place::Socket {
                pid: 77,
                start_ticks: 1,
                comm: "broker".into(),
                fd: 5,
                in_flight: 1,
                uid: None,
                sender: None,
                address: String::new(),
            }],
        }],
        unseen: Vec::new(),
        runs: Runs { visible: true, last: Some(RunInShort::from(&run(true))), ..Runs::default() },
        at_work: None,
        container_names: [("4f2a91c0b1de77aa00".to_owned(), "train".to_owned())].into(),
        users: Users::default(),
        healed: None,
        lease: None,
        put_back: None,
        request: Some(Request {
            schema: request::SCHEMA.into(),
            reasons: vec!["dpkg: files of the driver changed".into()],
            asked_usec: 1_763_999_700_000_000,
            state: request::State::WaitingForIdle,
            since_usec: 1_763_999_710_000_000,
            because: vec![Reason::new("process 41133 (python3 train.py)", "")],
        }),
        initramfs: Some(Initramfs {
            archive: "/boot/initrd.img-6.1.0-50-amd64".into(),
            stale: vec![Packed {
                name: "nvidia".into(),
                path: "usr/lib/modules/6.1.0-50-amd64/updates/dkms/nvidia-current-open.ko".into(),
                version: Some("535.261.03".into()),
                srcversion: None,
            }],
            remedy: Some("update-initramfs -u -k 6.1.0-50-amd64".into()),
        }),
    }
}

/// A driver that came back after its successor failed.
fn put_back() -> PutBack {
    PutBack {
        version: "550.163.01".into(),
        instead_of: Some("570.10".into()),
        run: "6b1e".into(),
        remedy:
            "`apt-get install --allow-downgrades nvidia-driver=550.163.01-2` makes the package database agree"
                .into(),
    }
}

/// What a user sees of a drained machine.
pub fn drained_for_a_user() -> Status {
    Status {
        driver: Driver {
            loaded: Some("550.163.01".into()),
            on_disk: Some("550.163.01".into()),
            mismatch: Some(false),
            present: true,
            library: Some("550.163.01".into()),
            ..Driver::default()
        },
        state: State::Drained,
        gpus: vec![gpu(0, Class::Info, &[])],
        holders: Vec::new(),
        consoles: Vec::new(),
        unexplained: Vec::new(),
        unseen: vec![
            "Processes of other users: only root may look at their descriptors.".into(),
            "The runs so far: only root may read the ledger.".into(),
        ],
        runs: Runs::default(),
        put_back: Some(put_back()),
        request: None,
        initramfs: None,
        ..busy_server()
    }
}

/// A plan with a container, a process, and something to be warned of.
pub fn ready_plan() -> Plan {
    let action = |step, object: &str, what: &str, why: &str, pids: &[i32], comes_back| Action {
        step,
        object: object.into(),
        what: what.into(),
        why: why.into(),
        pids: pids.to_vec(),
        comes_back,
    };
    let set = |pci: &str| ledger::Settings {
        pci: pci.into(),
        uuid: format!("GPU-{pci}"),
        settings: vec![
            ledger::Setting::Persistence,
            ledger::Setting::Mig,
            ledger::Setting::PowerLimit { milliwatts: 250_000 },
        ],
    };
    Plan {
        settings: vec![set("0000:3b:00.0"), set("0000:af:00.0")],
        verdict: Verdict::Ready,
        warnings: vec![Reason::new(
            "the initramfs holds 535.261.03: the next boot loads it",
            "run `update-initramfs -u`",
        )],
        driver: Versions { loaded: Some("535.261.03".into()), on_disk: Some("550.163.01".into()) },
        modules: ["nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia"].map(Into::into).to_vec(),
        actions: vec![
            action(
                Step::DrainContainers,
                "docker container train (4f2a91c0b1de)",
                "stop, start again afterwards",
                "its process 4242 holds nvidia0, nvidiactl and nvidia-uvm",
                &[4242],
                true,
            ),
            action(
                Step::KillHolders,
                "process 5151 (sleep\n 1000)",
                "SIGTERM, after 10 s SIGKILL",
                "it holds nvidiactl and nobody owns it",
                &[5151],
                false,
            ),
            action(
                Step::RmmodChain,
                "module nvidia",
                "unload, load again from disk",
                "part of the driver",
                &[],
                true,
            ),
            action(
                Step::Restore,
                "nvidia-fabricmanager.service",
                "start",
                "it failed (exit-code)",
                &[],
                true,
            ),
        ],
        ..Plan::refused(Vec::new())
    }
}

/// The plan of `command`, on a machine with a user and a run before.
pub fn proposed(command: Command, plan: Plan) -> Proposal {
    let mut proposal = Proposal::new(&Root::at("/no/such/root"), command, plan);
    let took = Took { seconds: 38.4, downtime_seconds: Some(31.2), ended_usec: 1_763_990_000_000_000 };
    let last = matches!(command, Command::Reload | Command::Install).then_some(took);
    proposal.expected = Expected { last, container_seconds: Some(60), process_seconds: Some(10) };
    proposal
}

/// What `start` finds in the ledger of an offline machine.
pub fn restoring_plan() -> Plan {
    let action = |step, object: &str| Action {
        step,
        object: object.into(),
        what: "restore".into(),
        why: String::new(),
        pids: Vec::new(),
        comes_back: true,
    };
    Plan {
        driver: Versions { loaded: None, on_disk: Some("550.163.01".into()) },
        warnings: vec![Reason::new(
            "process 5151 (sleep 1000) was killed and is not restarted",
            "start it again by hand",
        )],
        actions: vec![
            action(Step::DrainContainers, "docker container train (4f2a91c0b1de)"),
            action(Step::UnbindVt, "console vtcon1 ((M) frame buffer device)"),
        ],
        settings: Vec::new(),
        ..ready_plan()
    }
}

/// A plan that is none.
pub fn refused_plan() -> Plan {
    Plan {
        verdict: Verdict::Refused,
        reasons: vec![Reason::new(
            "Xorg (pid 812) draws on card0, and whoever sits before it would lose the session",
            "stop it: `systemctl stop display-manager.service`",
        )],
        ..ready_plan()
    }
}

/// A closed run: with a container that is back, a process that was ended, and, if `failed`, a
/// failed step and a container that is not back.
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
pub fn unwinding() -> Progress {
    use ActiveState::{Activating, Active, Deactivating, Failed};
    let mut progress = under_way();
    look(&mut progress, Step::DrainContainers, Active, 1_250_000, 4_350_000, 0, 4_350_000);
    for step in [Step::StopUnits, Step::KillHolders, Step::UnbindVt] {
        look(&mut progress, step, Active, 4_400_000, 4_500_000, 0, 4_500_000);
    }
    look(&mut progress, Step::RmmodChain, Activating, 4_600_000, 0, 0, 4_600_000);
    look(&mut progress, Step::RmmodChain, Deactivating, 4_600_000, 6_600_000, 1, 6_600_000);
    progress.phase = Phase::Unwinding;
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
    report.with_progress(&if failed { unwinding() } else { under_way() }).with_run(&run(failed))
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
    for (title, progress) in [("under way", under_way()), ("unwinding", unwinding())] {
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
