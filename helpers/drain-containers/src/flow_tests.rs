// SPDX-License-Identifier: MIT
//! Stopping and restarting, against the [fake engine](crate::fake_engine).

mod crash;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use ledger::{Act, Ledger, Snapshot, State, Step};
use step::{Context, Root, Stop};

use crate::fake_engine::{Engine, Fake, container, serve};
use crate::{restore, take};

struct Machine {
    _directory: tempfile::TempDir,
    context: Context,
    docker: Engine,
}

/// A machine below a temporary root: a driver in `/proc/devices`, a `dockerd`, an open run.
fn machine(containers: impl IntoIterator<Item = (String, Fake)>, config: &str) -> Machine {
    machine_of(containers, config, Snapshot::default())
}

fn machine_of(
    containers: impl IntoIterator<Item = (String, Fake)>,
    config: &str,
    snapshot: Snapshot,
) -> Machine {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    for (path, text) in [
        ("/proc/devices", "Character devices:\n195 nvidia\n\nBlock devices:\n"),
        ("/proc/7/comm", "dockerd\n"),
        ("/proc/7/status", "Uid:\t0\t0\t0\t0\n"),
        ("/etc/nvidia-reload/config.toml", config),
        ("/sys/module/.keep", ""),
        ("/run/.keep", ""),
    ] {
        let path = root.path(path);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
        fs::write(path, text).expect("writes");
    }
    std::os::unix::fs::symlink("/usr/sbin/dockerd", root.path("/proc/7/exe")).expect("links");
    let docker = serve(&root.path("/run/docker.sock"), containers);
    let ledger = Ledger::new(root.path("/var/lib/nvidia-reload"), "this-boot");
    ledger.open(snapshot).expect("opens");
    Machine { _directory: directory, context: Context { step: Step::DrainContainers, root, ledger }, docker }
}

impl Machine {
    fn take(&self) -> Result<(), String> {
        take::run(&self.context).map_err(|error| format!("{error:#}"))
    }

    fn restore(&self) -> Result<(), String> {
        restore::undo(&self.context).map_err(|error| format!("{error:#}"))
    }

    fn status(&self, name: &str) -> String {
        let docker = self.docker.lock().expect("not poisoned");
        docker.containers.get(&format!("id{name}")).map_or_else(|| "gone".into(), |fake| fake.status.clone())
    }

    fn with<T>(&self, name: &str, change: impl FnOnce(&mut Fake) -> T) -> T {
        let mut docker = self.docker.lock().expect("not poisoned");
        change(docker.containers.get_mut(&format!("id{name}")).expect("is there"))
    }

    fn orders(&self) -> Vec<String> {
        std::mem::take(&mut self.docker.lock().expect("not poisoned").orders)
    }

    fn acts(&self) -> Vec<Act> {
        self.context.ledger.read().expect("reads").expect("is open").acts
    }

    fn states(&self) -> Vec<State> {
        self.acts().into_iter().map(|act| act.state).collect()
    }
}

#[test]
fn what_is_taken_comes_back_as_it_was() {
    let machine =
        machine([container("a", "running"), container("bb", "paused"), container("x", "exited")], "");
    machine.take().expect("stops them");
    assert_eq!(machine.states(), [State::Done, State::Done]);
    let mut orders = machine.orders();
    orders.sort();
    assert_eq!(orders, ["stop a", "stop bb", "unpause bb"]);
    machine.restore().expect("starts them");
    assert_eq!(machine.states(), [State::Undone, State::Undone]);
    assert_eq!((machine.status("a"), machine.status("bb")), ("running".into(), "paused".into()));
    assert_eq!(machine.status("x"), "exited", "was not ours");
    machine.orders();
    machine.restore().expect("has nothing to do");
    assert!(machine.orders().is_empty());
}

#[test]
fn the_next_steps_are_skipped_only_where_nothing_is_left_for_them() {
    let plain = || Snapshot { hold: Some(false), ..Snapshot::default() };
    let of_unit = Snapshot { container_units: vec!["a.service".into()], ..plain() };
    let of_user = Snapshot { user_container_units: vec![(1000, "a.service".into())], ..plain() };
    for (snapshot, users, expected) in [
        (plain(), 0, true),
        (plain(), 1, false),
        (Snapshot { hold: Some(true), ..plain() }, 0, false),
        (Snapshot { hold: None, ..plain() }, 0, false),
        (of_unit, 0, false),
        (of_user, 0, false),
    ] {
        let what = format!("{users} users, {snapshot:?}");
        let machine = machine_of([container("a", "running")], "", snapshot);
        let root = &machine.context.root;
        golden::write(root, "/sys/module/nvidia/initstate", "live");
        golden::write(root, "/sys/module/nvidia/refcnt", &users.to_string());
        // Of an earlier run.
        golden::write(root, "/run/nvidia-reload/no-holders", "");
        machine.take().expect("stops it");
        assert_eq!(root.path("/run/nvidia-reload/no-holders").exists(), expected, "{what}");
    }
}

/// What preflight found: containers that ran, and the `dockerd` of then.
fn found(names: &[&str], dockerd: u64) -> Snapshot {
    let ran = |name: &&str| ledger::Container {
        engine: "docker".into(),
        socket: "/run/docker.sock".into(),
        id: format!("id{name}"),
        name: (*name).into(),
        ..ledger::Container::default()
    };
    Snapshot { containers: names.iter().map(ran).collect(), dockerd: Some(dockerd), ..Snapshot::default() }
}

#[test]
fn what_died_with_its_engine_before_its_turn_is_started_again() {
    // Of the one that started when the kernel does not tell, or of another.
    for (dockerd, states, status) in [
        (1234, vec![State::Intent, State::Lost(String::new()), State::Done], "running"),
        (0, vec![State::Done], "exited"),
    ] {
        let containers = [container("a", "exited"), container("bb", "running"), container("x", "exited")];
        let machine = machine_of(containers, "", found(&["a", "gone", "bb"], dockerd));
        machine.take().expect("stops the one that runs");
        let mut taken = machine.states();
        for state in &mut taken {
            if let State::Lost(reason) = state {
                assert!(std::mem::take(reason).contains("its engine died"));
            }
        }
        assert_eq!(taken, states);
        machine.restore().expect("starts what is left");
        assert_eq!((machine.status("a").as_str(), machine.status("bb").as_str()), (status, "running"));
        assert_eq!(machine.status("x"), "exited", "it did not run when the run was opened");
    }
}

#[test]
fn what_died_early_comes_back_also_where_nothing_else_runs_or_the_run_is_refused() {
    let brief = ("idbrief".to_owned(), Fake { auto_remove: true, ..container("brief", "running").1 });
    for more in [None, Some(brief)] {
        let containers = [container("a", "exited")].into_iter().chain(more.clone());
        let machine = machine_of(containers, "", found(&["a"], 1234));
        assert_eq!(machine.take().is_err(), more.is_some());
        assert_eq!(machine.states(), [State::Intent]);
        machine.restore().expect("starts it");
        assert_eq!(machine.status("a"), "running");
    }
}

#[test]
fn no_more_are_started_at_once_than_the_run_allows() {
    for (parallel, most) in [(1, 1), (2, 2)] {
        let slow = |name| {
            let (id, fake) = container(name, "running");
            (id, Fake { slow: true, ..fake })
        };
        let snapshot = Snapshot { parallel, ..Snapshot::default() };
        let machine = machine_of(["a", "bb", "ccc", "dddd"].map(slow), "", snapshot);
        machine.take().expect("stops them");
        machine.restore().expect("starts them");
        assert_eq!(machine.docker.lock().expect("not poisoned").starting.1, most);
    }
}

#[test]
fn one_that_will_not_stop_does_not_hold_up_the_others() {
    let stubborn = |(id, fake)| (id, Fake { stubborn: true, ..fake });
    let machine = machine([stubborn(container("a", "running")), container("bb", "running")], "");
    let error = machine.take().expect_err("one does not stop");
    assert!(error.contains("1 of 2 containers did not stop: docker container a (ida)"), "{error}");
    assert!(error.contains("cannot stop it"), "{error}");
    // Whether the order is carried out after all is not known: the undo looks.
    assert_eq!(machine.states(), [State::Intent, State::Done]);
    machine.restore().expect("starts both");
    assert_eq!(machine.states(), [State::Undone, State::Undone]);
    assert_eq!((machine.status("a"), machine.status("bb")), ("running".into(), "running".into()));
}

#[test]
fn an_engine_that_hangs_up_is_asked_again() {
    let hangs_up = |(id, fake)| (id, Fake { hangs_up: true, ..fake });
    let machine = machine([hangs_up(container("a", "running"))], "");
    machine.take().expect("stops it");
    assert_eq!(machine.states(), [State::Done]);
    machine.with("a", |fake| fake.hangs_up = true);
    machine.restore().expect("starts it");
    assert_eq!(machine.orders(), ["stop a", "start a"], "the look showed that each was heard");
    assert_eq!(machine.states(), [State::Undone]);
}

#[test]
fn what_runs_without_its_engine_knowing_is_ended_and_started_again() {
    let machine = machine([container("a", "running"), container("bb", "running")], "");
    machine.take().expect("stops them");
    // Of a and of bb, whose engines say that they are down; only that of a is refused for it.
    let mut firsts = ["ida", "idbb"].map(|id| {
        let first = Command::new("sleep").arg("60").spawn().expect("starts");
        let shim = machine.context.root.path(format!("/proc/{id}").replace("id", "10"));
        let task = shim.join("task/1");
        fs::create_dir_all(&task).expect("creates");
        fs::write(shim.join("comm"), "containerd-shim\n").expect("writes");
        fs::write(shim.join("status"), "Uid:\t0\t0\t0\t0\n").expect("writes");
        std::os::unix::fs::symlink("/usr/bin/containerd-shim-runc-v2", shim.join("exe")).expect("links");
        let words = format!("/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-id\0{id}\0");
        fs::write(shim.join("cmdline"), words).expect("writes");
        fs::write(task.join("children"), format!("{} ", first.id())).expect("writes");
        first
    });
    machine.with("a", |fake| fake.cut_off = Some(firsts[0].id()));
    machine.restore().expect("starts them");
    assert_eq!((machine.status("a"), machine.status("bb")), ("running".into(), "running".into()));
    assert_eq!(machine.states(), [State::Undone, State::Undone]);
    let ended = firsts[0].wait().expect("has ended");
    assert_eq!(ended.signal(), Some(9));
    assert_eq!(firsts[1].try_wait().expect("lives"), None, "the directory was free");
    firsts[1].kill().expect("ends");
    firsts[1].wait().expect("has ended");
}

#[test]
fn what_its_engine_started_again_is_stopped_again() {
    let always = |(id, fake)| (id, Fake { restart: "always".into(), ..fake });
    let machine = machine([always(container("a", "running"))], "");
    machine.with("a", |fake| fake.revives = true);
    machine.take().expect("stops it twice");
    assert_eq!((machine.orders(), machine.status("a")), (vec!["stop a".into(); 2], "exited".into()));
}

#[test]
fn what_happened_meanwhile_is_seen() {
    let names = ["a", "bb", "ccc", "dddd"];
    let machine = machine(names.map(|name| container(name, "running")), "");
    machine.take().expect("stops them");
    machine.orders();
    machine.with("a", |fake| fake.status = "running".into());
    machine.docker.lock().expect("not poisoned").containers.remove("idbb");
    machine.with("ccc", |fake| fake.fails = (3, u32::MAX));
    let error = machine.restore().expect_err("one does not start");
    assert!(error.contains("docker container ccc"), "{error}");
    assert!(error.contains("exit status 3"), "{error}");
    let states = machine.states();
    assert_eq!((&states[0], &states[3]), (&State::Undone, &State::Undone));
    assert!(matches!(&states[1], State::Lost(reason) if reason.contains("removed")), "{states:?}");
    assert!(matches!(&states[2], State::UndoFailed(_)), "{states:?}");
    let mut orders = machine.orders();
    orders.sort();
    assert_eq!(orders, ["start ccc", "start dddd"], "one that runs is not touched");
    machine.with("ccc", |fake| fake.fails.1 = 0);
    machine.restore().expect("the second try works");
    assert_eq!(machine.states()[2], State::Undone);
}

#[test]
fn who_shares_a_network_stops_first_and_starts_last() {
    let shares = |(id, fake)| (id, Fake { network: "container:iddddd".into(), ..fake });
    let machine = machine([shares(container("a", "running")), container("dddd", "running")], "");
    machine.take().expect("stops them");
    machine.restore().expect("starts them");
    assert_eq!(machine.orders(), ["stop a", "stop dddd", "start dddd", "start a"]);
}

#[test]
fn what_would_be_deleted_is_refused_or_let_go() {
    let brief = || [("idbrief".to_owned(), Fake { auto_remove: true, ..container("brief", "running").1 })];
    let kept = machine(brief(), "");
    let error = take::run(&kept.context).expect_err("is refused");
    assert!(matches!(error.downcast_ref::<Stop>(), Some(Stop::Refused(reasons)) if reasons.len() == 1));
    assert!(kept.acts().is_empty() && kept.orders().is_empty(), "nothing was touched");
    let gone = machine(brief(), "[containers]\nauto-remove = \"let-go\"");
    gone.take().expect("lets it go");
    assert!(matches!(&gone.states()[0], State::Lost(reason) if reason.contains("--rm")));
    assert_eq!(gone.status("brief"), "gone");
    gone.restore().expect("has nothing to do");
}

#[test]
fn what_was_deleted_is_recreated_once() {
    let brief = || [("idbrief".to_owned(), Fake { auto_remove: true, ..container("brief", "paused").1 })];
    let machine = machine(brief(), "[containers]\nauto-remove = \"recreate\"");
    machine.take().expect("stops it");
    assert_eq!((machine.states(), machine.status("brief")), (vec![State::Done], "gone".into()));
    machine.orders();
    machine.restore().expect("recreates it");
    assert_eq!(machine.orders(), ["create brief", "start newbrief", "pause newbrief"]);
    assert_eq!(machine.states(), [State::Undone]);
    machine.restore().expect("has nothing to do");
    assert!(machine.orders().is_empty());
}

#[test]
fn without_an_open_run_nothing_is_stopped() {
    let machine = machine([container("a", "running")], "");
    machine.context.ledger.close(ledger::Outcome::Done).expect("closes");
    machine.take().expect_err("there is nowhere to write it down");
    assert_eq!(machine.status("a"), "running");
    machine.restore().expect("has nothing to do");
}

#[test]
fn a_health_check_is_waited_for_where_that_is_configured() {
    let check = |name, health: &[&'static str]| {
        let (id, fake) = container(name, "running");
        (id, Fake { health: health.to_vec(), ..fake })
    };
    let containers =
        || [check("slow", &["starting", "starting", "starting", "healthy"]), check("ill", &["unhealthy"])];
    let looks_left = |machine: &Machine| machine.with("slow", |fake| fake.health.len());
    let machine = self::machine(containers(), "[containers]\nhealth-timeout = 60\n");
    machine.take().expect("stops");
    machine.restore().expect("starts, also the one that is ill");
    assert_eq!(looks_left(&machine), 1, "it is healthy");
    assert_eq!((machine.status("slow").as_str(), machine.status("ill").as_str()), ("running", "running"));
    let machine = self::machine([check("slow", &["starting"; 50])], "");
    machine.take().expect("stops");
    machine.restore().expect("starts");
    assert!(looks_left(&machine) > 30, "no wait in between");
}

#[test]
fn what_an_engine_took_along_when_it_died_is_started_again() {
    let machine = self::machine([container("a", "running"), container("bb", "running")], "");
    machine.take().expect("stops them");
    // The order was carried out, and the next look shows it killed: once, or each time.
    machine.with("a", |fake| fake.fails = (137, 1));
    machine.with("bb", |fake| fake.fails = (137, u32::MAX));
    let error = machine.restore().expect_err("one does not start");
    assert_eq!(machine.status("a"), "running");
    assert!(!error.contains("container a"), "{error}");
    assert!(error.contains("docker container bb") && error.contains("exit status 137"), "{error}");
}

#[test]
fn a_ledger_that_cannot_be_written_keeps_no_container_down() {
    let machine = machine(["a", "bb", "ccc"].map(|name| container(name, "running")), "");
    machine.take().expect("stops them");
    // Who writes takes it first.
    let lock = machine.context.root.path("/var/lib/nvidia-reload/ledger.lock");
    fs::remove_file(&lock).expect("removes");
    fs::create_dir(&lock).expect("is in the way");
    let error = machine.restore().expect_err("nothing is written");
    for name in ["a", "bb", "ccc"] {
        assert_eq!(machine.status(name), "running", "{error}");
    }
    fs::remove_dir(&lock).expect("removes");
    machine.restore().expect("writes that they run");
    assert_eq!(machine.states(), vec![State::Undone; 3]);
}
