// SPDX-License-Identifier: MIT
//! A FAKE of a container engine: HTTP over a unix socket, containers that are entries in a map.
//!
//! For what a test on a real engine cannot bring about at will: one that dies over an order,
//! containers that do not stop. How real engines behave is tested in the machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) auto_remove: bool,
    pub(crate) network: String,
    /// Answers 500 to a stop and goes on running.
    pub(crate) stubborn: bool,
    /// The next order is carried out and the connection closed without an answer.
    pub(crate) hangs_up: bool,
    /// The restart policy.
    pub(crate) restart: String,
    /// Once it was seen stopped, its engine starts it, as one does that died and is back.
    pub(crate) revives: bool,
    /// Ends with this status as soon as it is started, and so many times.
    pub(crate) fails: (i64, u32),
    /// How it ended last.
    pub(crate) exit_code: i64,
    /// A start is refused as long as this process lives.
    pub(crate) cut_off: Option<u32>,
    /// Its start takes a while.
    pub(crate) slow: bool,
    /// What its health check says, one word a look; the last one stays.
    pub(crate) health: Vec<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) containers: BTreeMap<String, Fake>,
    /// Every order, in the order of arrival: `stop a`.
    pub(crate) orders: Vec<String>,
    /// How many slow starts are under way, and the most that ever were.
    pub(crate) starting: (usize, usize),
}

pub(crate) type Engine = Arc<Mutex<State>>;

pub(crate) fn container(name: &str, status: &str) -> (String, Fake) {
    (format!("id{name}"), Fake { name: name.into(), status: status.into(), ..Fake::default() })
}

/// Serves `containers` on `socket` until the test ends.
pub(crate) fn serve(socket: &Path, containers: impl IntoIterator<Item = (String, Fake)>) -> Engine {
    let listener = UnixListener::bind(socket).expect("binds");
    let state = State { containers: containers.into_iter().collect(), orders: Vec::new(), starting: (0, 0) };
    let engine = Arc::new(Mutex::new(state));
    let shared = Arc::clone(&engine);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || answer(stream.expect("a connection"), &shared));
        }
    });
    engine
}

fn answer(mut stream: UnixStream, engine: &Engine) {
    let mut lines = BufReader::new(stream.try_clone().expect("clones")).lines();
    let Some(Ok(first)) = lines.next() else { return };
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    // Of a query there is only the name of what is created.
    let name = target.split("?name=").nth(1).unwrap_or_default();
    let slow = parts.last() == Some(&"start")
        && engine.lock().expect("not poisoned").containers.get(parts[1]).is_some_and(|fake| fake.slow);
    if slow {
        let starting = |change: isize| {
            let mut state = engine.lock().expect("not poisoned");
            state.starting.0 = state.starting.0.saturating_add_signed(change);
            state.starting.1 = state.starting.1.max(state.starting.0);
        };
        starting(1);
        std::thread::sleep(std::time::Duration::from_millis(500));
        starting(-1);
    }
    let Some((status, body)) = reply(method, &parts, name, &mut engine.lock().expect("not poisoned")) else {
        return;
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

fn reply(method: &str, parts: &[&str], name: &str, state: &mut State) -> Option<(u16, Value)> {
    match (method, parts) {
        ("GET", ["info"]) => Some((200, json!({"DefaultRuntime": "runc"}))),
        ("GET", ["containers", "json"]) => {
            let up = |fake: &Fake| fake.status != "exited";
            let list = state.containers.iter().filter(|(_, fake)| up(fake)).map(|(id, _)| json!({"Id": id}));
            Some((200, list.collect()))
        }
        ("GET", ["images", ..]) => Some((200, json!({"Id": "sha256:feed"}))),
        // By its id, or by the name that it is recreated with: here that is its id.
        ("GET", ["containers", id, "json"]) => Some(match state.containers.get_mut(*id) {
            Some(fake) => {
                let shown = describe(id, fake);
                if fake.status == "running" && fake.health.len() > 1 {
                    fake.health.remove(0);
                }
                if fake.status == "exited" && std::mem::take(&mut fake.revives) {
                    fake.status = "running".into();
                }
                (200, shown)
            }
            None => (404, json!({"message": "No such container"})),
        }),
        ("POST", ["containers", "create"]) => {
            state.orders.push(format!("create {name}"));
            let fake =
                Fake { name: name.into(), status: "created".into(), auto_remove: true, ..Fake::default() };
            state.containers.insert(format!("new{name}"), fake);
            Some((201, json!({"Id": format!("new{name}"), "Warnings": []})))
        }
        ("POST", ["containers", id, order]) => {
            state.orders.push(format!("{order} {}", id.trim_start_matches("id")));
            let Some(fake) = state.containers.get_mut(*id) else {
                return Some((404, json!({"message": "No such container"})));
            };
            if *order == "stop" && fake.stubborn {
                return Some((500, json!({"message": "cannot stop it"})));
            }
            if *order == "start" && fake.cut_off.is_some_and(lives) {
                return Some((500, json!({"message": "id already in use"})));
            }
            fake.status = match *order {
                "stop" => "exited",
                "pause" => "paused",
                "start" if fake.fails.1 > 0 => {
                    fake.fails.1 -= 1;
                    fake.exit_code = fake.fails.0;
                    "exited"
                }
                _ => "running",
            }
            .into();
            let hung_up = std::mem::take(&mut fake.hangs_up);
            if *order == "stop" && fake.auto_remove {
                state.containers.remove(*id);
            }
            (!hung_up).then_some((204, Value::Null))
        }
        _ => Some((400, json!({"message": "the fake does not know this"}))),
    }
}

fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn describe(id: &str, fake: &Fake) -> Value {
    json!({
        "Id": id, "Name": format!("/{}", fake.name), "Image": "sha256:feed",
        "NetworkSettings": {"Networks": {}},
        "Created": format!("2026-01-01T00:00:00.{}Z", fake.name.len()),
        "State": {"Status": fake.status, "Pid": 0, "ExitCode": fake.exit_code,
            "Health": fake.health.first().map(|status| json!({"Status": status}))},
        "HostConfig": {"AutoRemove": fake.auto_remove, "NetworkMode": fake.network,
            "DeviceRequests": [{"Driver": "nvidia"}],
            "RestartPolicy": {"Name": fake.restart}},
        "Config": {},
    })
}
