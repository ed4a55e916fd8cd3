// SPDX-License-Identifier: MIT
//! The follower against a manager of the test's own, over a socket as PID 1 has one.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use zbus::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Guid, OwnedObjectPath, Variant, block_on, fdo, interface};

use crate::connect::Scope;
use crate::proxies::JobRow;
use crate::{ActiveState, Error, Event, JobResult, Manager, Mode, SystemState, UnitChange};

const MANAGER: &str = "/org/freedesktop/systemd1";

/// Says much of other units before it answers a subscription, as systemd 257 does at a look at units
/// that were not loaded; ends the job of `short.service` before it answers, as systemd does with a job
/// that has nothing to do; leaves that of `long.service` in its queue; knows no other.
#[derive(Default)]
struct Fake {
    queue: Vec<JobRow>,
}

fn job(id: u32) -> OwnedObjectPath {
    OwnedObjectPath::try_from(format!("{MANAGER}/job/{id}")).expect("is a path")
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Fake {
    async fn subscribe(&self, #[zbus(signal_emitter)] emitter: SignalEmitter<'_>) -> fdo::Result<()> {
        for _ in 0..1000 {
            Fake::unit_removed(&emitter, "other.device", job(7)).await?;
        }
        Ok(())
    }

    async fn start_unit(
        &mut self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        _mode: String,
    ) -> fdo::Result<OwnedObjectPath> {
        match name.as_str() {
            "short.service" => {
                Fake::job_removed(&emitter, 1, job(1), &name, "done").await?;
                Ok(job(1))
            }
            "long.service" => {
                self.queue.push((2, name, "start".into(), "running".into(), job(2), job(2)));
                Ok(job(2))
            }
            _ => Err(fdo::Error::AccessDenied("no".into())),
        }
    }

    /// Here: ends the job of `long.service` as failed.
    async fn stop_unit(
        &mut self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        _mode: String,
    ) -> fdo::Result<OwnedObjectPath> {
        self.queue.clear();
        Fake::job_removed(&emitter, 2, job(2), &name, "failed").await?;
        Ok(job(3))
    }

    /// Here: loses a job when it is asked for `lose.service`, and says that it has reloaded; not for `drop.service`.
    async fn load_unit(
        &mut self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
    ) -> fdo::Result<OwnedObjectPath> {
        if matches!(name.as_str(), "lose.service" | "drop.service") {
            self.queue.clear();
        }
        if name == "lose.service" {
            Fake::reloading(&emitter, false).await?;
        }
        Ok(job(9))
    }

    fn list_jobs(&self) -> Vec<JobRow> {
        self.queue.clone()
    }

    #[zbus(property)]
    fn system_state(&self) -> String {
        "stopping".into()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn unit_removed(emitter: &SignalEmitter<'_>, unit: &str, path: OwnedObjectPath)
    -> zbus::Result<()>;

    #[zbus(signal)]
    async fn reloading(emitter: &SignalEmitter<'_>, active: bool) -> zbus::Result<()>;
}

/// Serves connections at `path`, each with a fake of its own; hands them out, to be cut.
fn serve(path: &Path) -> mpsc::Receiver<Connection> {
    let listener = UnixListener::bind(path).expect("binds");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let builder = Builder::unix_stream(stream.expect("accepts")).server(Guid::generate()).p2p();
            let connection =
                block_on(builder.serve_at(MANAGER, Fake::default()).build()).expect("shakes hands");
            if sender.send(connection).is_err() {
                return;
            }
        }
    });
    receiver
}

fn fake() -> (tempfile::TempDir, PathBuf, mpsc::Receiver<Connection>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("private");
    let connections = serve(&path);
    (directory, path, connections)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[test]
fn an_end_before_the_answer_is_not_missed() {
    let (_directory, path, _connections) = fake();
    let mut follower = Manager::connect(Scope::Socket(path)).expect("connects").follow(&[]).expect("follows");
    let job = follower.start("short.service").expect("queues");
    assert_eq!(follower.wait(&job, soon()).expect("ends"), JobResult::Done);
}

#[test]
fn a_failure_is_typed_and_a_deadline_holds() {
    let (_directory, path, _connections) = fake();
    let mut follower = Manager::connect(Scope::Socket(path)).expect("connects").follow(&[]).expect("follows");
    let job = follower.start("long.service").expect("queues");
    let error = follower.wait(&job, Instant::now() + Duration::from_millis(50)).expect_err("is still queued");
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    follower.manager().stop("long.service", Mode::Replace).expect("stops");
    assert_eq!(follower.wait(&job, soon()).expect("ends"), JobResult::Failed);
}

#[test]
fn a_manager_that_never_stops_to_speak_does_not_hold_up_its_listener() {
    let (_directory, path, connections) = fake();
    let mut follower = Manager::connect(Scope::Socket(path)).expect("connects").follow(&[]).expect("follows");
    let queued = follower.start("long.service").expect("queues");
    let server = connections.recv().expect("was accepted");
    thread::spawn(move || {
        let body = (9u32, job(9), "other.service", "done");
        let manager = "org.freedesktop.systemd1.Manager";
        while block_on(server.emit_signal(None::<&str>, MANAGER, manager, "JobRemoved", &body)).is_ok() {}
    });
    let began = Instant::now();
    let error = follower.wait(&queued, began + Duration::from_millis(200)).expect_err("is still queued");
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_job_gone_after_a_reload_has_ended_unseen() {
    let (_directory, path, _connections) = fake();
    let mut follower = Manager::connect(Scope::Socket(path)).expect("connects").follow(&[]).expect("follows");
    let job = follower.start("long.service").expect("queues");
    let _ = follower.manager().path("lose.service").expect("reloads");
    assert_eq!(follower.wait(&job, soon()).expect("ends"), JobResult::Unseen);
}

#[test]
fn a_job_whose_end_is_never_told_is_looked_for() {
    let (_directory, path, _connections) = fake();
    let mut follower = Manager::connect(Scope::Socket(path)).expect("connects").follow(&[]).expect("follows");
    let job = follower.start("long.service").expect("queues");
    follower.silence = Duration::from_millis(50);
    let until = Instant::now() + Duration::from_millis(300);
    follower.wait(&job, until).expect_err("is still queued, however often it is looked for");
    let _ = follower.manager().path("drop.service").expect("drops it");
    assert_eq!(follower.wait(&job, soon()).expect("ends"), JobResult::Unseen);
}

#[test]
fn changes_of_a_unit_bring_their_values() {
    let (_directory, path, connections) = fake();
    let manager = Manager::connect(Scope::Socket(path)).expect("connects");
    let mut follower = manager.follow(&["a.service"]).expect("follows");
    let server = connections.recv().expect("was accepted");
    let values: HashMap<&str, Variant<'_>> =
        [("ActiveState", "activating".into()), ("ExecMainStatus", 3i32.into()), ("Unknown", 1u8.into())]
            .into();
    let body = ("org.freedesktop.systemd1.Unit", values, Vec::<String>::new());
    // The second is of a unit that was not asked about.
    for at in ["a.service", "b.service"].map(crate::manager::path_of) {
        block_on(server.emit_signal(
            None::<&str>,
            at.as_str(),
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            &body,
        ))
        .expect("emits");
    }
    let event = follower.next(soon()).expect("listens").expect("comes");
    let change =
        UnitChange { active: Some(ActiveState::Activating), status: Some(3), ..UnitChange::default() };
    assert_eq!(event, Event::UnitChanged { unit: "a.service".into(), change: change.into() });
    assert_eq!(follower.next(Instant::now()).expect("listens"), None);
}

#[test]
fn a_lost_connection_is_made_again() {
    let (_directory, path, connections) = fake();
    let mut follower = Manager::connect(Scope::Socket(path)).expect("connects").follow(&[]).expect("follows");
    let job = follower.start("long.service").expect("queues");
    let first = connections.recv().expect("was accepted");
    block_on(first.close()).expect("closes");
    // The fake of the new connection has an empty queue.
    assert_eq!(follower.wait(&job, soon()).expect("ends"), JobResult::Unseen);
    assert_eq!(follower.manager().state().expect("answers"), SystemState::Stopping);
}

#[test]
fn each_of_several_has_a_result_of_its_own() {
    let (_directory, path, _connections) = fake();
    let mut follower = Manager::connect(Scope::Socket(path)).expect("connects").follow(&[]).expect("follows");
    let mut told = Vec::new();
    let mut no_file = |_: &str| Ok(false);
    let names = ["secret.service", "other.service"];
    let time = Duration::from_millis(100);
    crate::start_each(&mut follower, &names, time, &mut no_file, |at, result| {
        told.push((at, result.is_ok()))
    });
    assert_eq!(told, [(0, false), (1, false)], "neither keeps the other from being tried");
}

#[test]
fn errors_have_kinds() {
    let (_directory, path, _connections) = fake();
    let manager = Manager::connect(Scope::Socket(path)).expect("connects");
    let error = manager.start("secret.service", Mode::Fail).expect_err("is refused");
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let error = Manager::connect(Scope::Socket("/nonexistent/private".into())).expect_err("is not there");
    assert!(error.is_disconnect(), "{error:?}");
    assert_eq!(error.to_string(), "cannot reach the test's systemd at /nonexistent/private");
}

#[test]
fn words_of_later_versions_survive() {
    assert_eq!(ActiveState::from("active".to_owned()), ActiveState::Active);
    assert_eq!(JobResult::from("sublimated".to_owned()).to_string(), "sublimated");
}

#[test]
fn a_units_path_is_its_name_encoded() {
    for (name, path) in [
        ("a.service", "a_2eservice"),
        ("nvidia-reload-rmmod-chain.service", "nvidia_2dreload_2drmmod_2dchain_2eservice"),
        ("-.mount", "_2d_2emount"),
        ("3d_x@é.socket", "_33d_5fx_40_c3_a9_2esocket"),
    ] {
        assert_eq!(crate::manager::path_of(name), format!("/org/freedesktop/systemd1/unit/{path}"));
    }
}
