// SPDX-License-Identifier: MIT
//! Runs to be played: what their steps act on, how that goes, and how they end.

use std::collections::{BTreeMap, BTreeSet};

use ledger::{Console, Container, DriverFiles, Module, Object, Process, Settings, Step, Unit};
use proptest::prelude::*;

/// What becomes of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Done,
    /// It did not happen, and the step knows.
    Unchanged,
    /// It happened, and the step does not know.
    Unknown,
    /// It did not happen, and the step does not know.
    Doubt,
}

/// A run: how the acts of its steps go, and how it ends.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) acts: Vec<(usize, Turn)>,
    pub(super) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Verify succeeds, restore restores, preflight's undo closes.
    Committed,
    /// A step fails, and the steps are undone.
    Failed(Step),
    /// The same after the commit.
    RestoreFailed,
}

pub(super) fn objects() -> Vec<(Step, Object)> {
    let container = |name: &str| {
        let definition = Some(serde_json::json!({"Env": ["TOKEN=secret"]}));
        let (engine, name) = ("docker".to_owned(), name.to_owned());
        Object::Container(Container { engine, id: name.repeat(12), name, definition, ..Container::default() })
    };
    let unit = |name: &str, user| Object::Unit(Unit { name: name.into(), user, role: "holder".into() });
    let process = |pid| Object::Process(Process { pid, start_ticks: 7, uid: 0, command: "a\\nb é".into() });
    let console =
        |name: &str| Object::Console(Console { vtcon: name.into(), driver: "(M) frame buffer".into() });
    let settings =
        Object::Settings(Settings { pci: "0000:3b:00.0".into(), uuid: "GPU-a".into(), settings: Vec::new() });
    let module = |name: &str| {
        let version = Some("535.261.03".to_owned());
        Object::Module(Module { name: name.into(), version, srcversion: None, parameters: BTreeMap::new() })
    };
    let files =
        DriverFiles { version: "535.261.03".into(), others: BTreeSet::from(["550.163.01".to_owned()]) };
    vec![
        (Step::DrainContainers, container("a")),
        (Step::DrainContainers, container("b")),
        (Step::DrainContainers, Object::Cdi { paths: vec!["/etc/cdi/nvidia.yaml".into()] }),
        (Step::StopUnits, unit("a.service", None)),
        (Step::StopUnits, unit("b.socket", Some(1000))),
        (Step::KillHolders, process(7)),
        (Step::UnbindVt, console("vtcon1")),
        (Step::Settings, settings),
        (Step::RmmodChain, Object::Gate { path: "/run/modprobe.d/00-nvidia-reload.conf".into() }),
        (Step::RmmodChain, module("nvidia_uvm")),
        (Step::RmmodChain, module("nvidia")),
        (Step::InstallDriver, Object::DriverFiles(files)),
    ]
}

pub(super) fn script() -> impl Strategy<Value = Script> {
    let turn = prop_oneof![
        6 => Just(Turn::Done),
        1 => Just(Turn::Unchanged),
        1 => Just(Turn::Unknown),
        1 => Just(Turn::Doubt),
    ];
    let turns = prop::collection::vec(prop::option::weighted(0.8, turn), objects().len());
    let end = prop_oneof![
        2 => Just(End::Committed),
        1 => Just(End::RestoreFailed),
        1 => Just(End::Failed(Step::StopUnits)),
        1 => Just(End::Failed(Step::RmmodChain)),
        1 => Just(End::Failed(Step::ModprobeChain)),
        1 => Just(End::Failed(Step::Verify)),
    ];
    (turns, end).prop_map(|(turns, end)| {
        let acts = turns.into_iter().enumerate().filter_map(|(at, turn)| Some((at, turn?))).collect();
        Script { acts, end }
    })
}
