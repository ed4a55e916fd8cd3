// SPDX-License-Identifier: MIT
//! Machines, for the tests of the views.

use gpu::Memory;
use holders::{
    Console, Container, Device, Engine, Holder, Kind, Module, Owner, Place, Rdev, Unexplained, Via,
};
use initramfs::Packed;
use request::Request;
use step::Reason;
use xid::Class;

use crate::gpus::{Detail, Need};
use crate::put_back::PutBack;
use crate::status::{Driver, Gate, Gpu, Initramfs, RunInShort, Runs, SCHEMA, State, Status};
use crate::users::Users;

use super::run;

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
