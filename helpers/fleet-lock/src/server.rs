// SPDX-License-Identifier: MIT
//! A FleetLock server by the text of the protocol, for the tests; it can be slow, failing and lying.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Honest,
    Slow,
    Failing,
    NoJson,
    Redirecting,
    Created,
    Huge,
    GarbageWith200,
    Silent,
    Hangup,
    Trickle,
    NoHttp,
}

struct State {
    slots: usize,
    mode: Mode,
    holders: Vec<String>,
    complaints: Vec<String>,
}

/// The server; it ends with the test's process.
pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// One with so many slots.
    pub(crate) fn start(slots: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("has an address").port();
        let state = State { slots, mode: Mode::Honest, holders: Vec::new(), complaints: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Server { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/base", self.port)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.lock().expect("is whole").mode = mode;
    }

    pub(crate) fn holders(&self) -> Vec<String> {
        self.state.lock().expect("is whole").holders.clone()
    }

    /// What was not asked as the protocol says.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.state.lock().expect("is whole").complaints.clone()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let Some((line, headers, body)) = request(&stream) else { return };
    let mode = state.lock().expect("is whole").mode;
    let answer = match mode {
        Mode::Honest => decide(&line, &headers, &body, &mut state.lock().expect("is whole")),
        Mode::Slow => {
            thread::sleep(Duration::from_secs(1));
            decide(&line, &headers, &body, &mut state.lock().expect("is whole"))
        }
        Mode::Failing => error("500 Internal Server Error", "internal\n", "etcd is down"),
        Mode::NoJson => reply("503 Service Unavailable", "<html>\x1b[2Jcome back later</html>"),
        // To the same server, which would grant it.
        Mode::Redirecting => {
            state.lock().expect("is whole").mode = Mode::Honest;
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: /base/v1/pre-reboot\r\ncontent-length: 0\r\n\r\n"
                .into()
        }
        Mode::Created => reply("201 Created", ""),
        Mode::Huge => reply("500 Internal Server Error", &"x".repeat(64 << 20)),
        Mode::GarbageWith200 => reply("200 OK", "{\"kind\": <html>"),
        Mode::NoHttp => "220 mail.example ESMTP\r\n".into(),
        Mode::Silent => {
            thread::sleep(Duration::from_secs(60));
            return;
        }
        Mode::Hangup => return,
        Mode::Trickle => {
            for byte in "HTTP/1.1 200 OK\r\n".bytes().chain(std::iter::repeat(b'x')) {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(50));
            }
            return;
        }
    };
    // One that hangs up on a long answer is right.
    let _ = stream.write_all(answer.as_bytes());
}

/// The request line, the headers in small letters, and the body.
fn request(stream: &TcpStream) -> Option<(String, Vec<String>, String)> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let first = lines.remove(0);
    let headers: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    let length = headers.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, headers, String::from_utf8(body).ok()?))
}

/// As the protocol has it: POST, the header, the body; a lock that is recursive, an unlock of what is held.
fn decide(line: &str, headers: &[String], body: &str, state: &mut State) -> String {
    let lock = match line {
        "POST /base/v1/pre-reboot HTTP/1.1" => true,
        "POST /base/v1/steady-state HTTP/1.1" => false,
        _ => return reply("404 Not Found", "404 page not found"),
    };
    if !headers.iter().any(|header| header == "fleet-lock-protocol: true") {
        state.complaints.push(format!("{line}: no header"));
        return error("400 Bad Request", "no_header", "the header is missing");
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let text = |key: &str| body["client_params"][key].as_str().filter(|text| !text.is_empty());
    let (Some(id), Some(group)) = (text("id"), text("group")) else {
        state.complaints.push(format!("{line}: {body}"));
        return error("400 Bad Request", "bad_body", "id or group is missing");
    };
    if group != "default" {
        return error("400 Bad Request", "unknown_group", "unknown group");
    }
    let holds = state.holders.iter().position(|holder| holder == id);
    match (lock, holds) {
        (true, Some(_)) | (false, None) => {}
        (false, Some(at)) => drop(state.holders.remove(at)),
        (true, None) if state.holders.len() < state.slots => state.holders.push(id.to_owned()),
        (true, None) => {
            return error(
                "500 Internal Server Error",
                "failed_lock_semaphore_full",
                "semaphore currently full",
            );
        }
    }
    reply("200 OK", "")
}

fn error(status: &str, kind: &str, value: &str) -> String {
    reply(status, &serde_json::json!({"kind": kind, "value": value}).to_string())
}

fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}
