// SPDX-License-Identifier: MIT
//! Root's side against users that do not mean well.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::Unit;

const PATIENCE: Duration = Duration::from_millis(300);

fn unit(agent: &Agent) -> Result<Unit, Error> {
    agent.ask(Ask::Unit { name: "a.service".into() }, Duration::from_secs(10))
}

/// An agent whose worker is `worker`.
fn with(worker: impl FnOnce(UnixStream) + Send + 'static) -> Agent {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    thread::spawn(move || worker(theirs));
    Agent::over(ours, 1000, Duration::from_secs(20)).expect("starts")
}

/// A worker that answers every request with `answer`, in which ID is the request's.
fn answers(answer: &'static str) -> Agent {
    with(move |stream| {
        let mut lines = Lines::new(stream.try_clone().expect("clones"), LONGEST, MOST);
        while let Ok(Some(line)) = lines.next(Instant::now() + Duration::from_secs(20)) {
            let request: Request = serde_json::from_slice(&line).expect("is a request");
            let _ = (&stream).write_all(answer.replace("ID", &request.id.to_string()).as_bytes());
        }
    })
}

fn reason(error: Error) -> String {
    match error {
        Error::Over { uid: 1000, reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_is_handed_to_who_asked() {
    let agent = answers("{\"id\":ID,\"result\":{\"Ok\":{\"name\":\"a.service\",\"up\":true}}}\n");
    assert_eq!(unit(&agent), Ok(Unit { name: "a.service".into(), up: true }));
    let agent = answers("{\"id\":ID,\"result\":{\"Err\":\"gone\"}}\n");
    assert_eq!(unit(&agent), Err(Error::Gone));
    assert_eq!(unit(&agent), Err(Error::Gone), "an error is no end");
}

#[test]
fn what_is_no_answer_ends_the_conversation() {
    for (answer, words) in [
        ("nonsense\n", "no answer"),
        ("{\"id\":ID,\"result\":{\"Ok\":7}}\n", "not asked"),
        ("{\"id\":ID,\"result\":{\"Ok\":{\"name\":\"a\\nMAINPID=1\",\"up\":true}}}\n", "control character"),
        ("{\"id\":77,\"result\":{\"Ok\":null}}\n", "without a request"),
        ("{\"id\":ID,\"result\":{\"Err\":{\"other\":\"a\\u001b[2Jb\"}}}\n", "a\u{fffd}[2Jb"),
    ] {
        let agent = answers(answer);
        match unit(&agent).expect_err("is not taken") {
            Error::Failed(message) => assert_eq!(message, words),
            error => {
                let first = reason(error);
                assert!(first.contains(words), "{first}");
                assert_eq!(reason(unit(&agent).expect_err("is over")), first, "nothing more is said");
            }
        }
    }
}

#[test]
fn silence_floods_and_hanging_up_cost_a_bounded_time() {
    let began = Instant::now();
    let silent = with(|stream| thread::sleep(Duration::from_secs(u64::from(stream.peer_addr().is_ok()) * 3)));
    let asked = silent.ask::<Unit>(Ask::Unit { name: "a.service".into() }, PATIENCE);
    assert!(reason(asked.expect_err("no answer")).contains("within"));
    let flood = with(|mut stream| {
        let endless = [b'['; 1 << 16];
        while stream.write_all(&endless).is_ok() {}
    });
    assert!(reason(unit(&flood).expect_err("no answer")).contains("broke the protocol"));
    let empty = with(|mut stream| {
        let endless = [b'\n'; 1 << 16];
        while stream.write_all(&endless).is_ok() {}
    });
    assert!(reason(unit(&empty).expect_err("no answer")).contains("no answer"));
    let gone = with(drop);
    unit(&gone).expect_err("no answer");
    // Reads nothing: what is asked does not fit in its socket.
    let deaf = with(|stream| {
        thread::sleep(Duration::from_secs(3));
        drop(stream);
    });
    let long = Ask::StartUnits { names: vec!["a".repeat(1 << 20)], seconds: 1 };
    deaf.ask::<Value>(long, PATIENCE).expect_err("does not listen");
    drop((silent, flood, empty, gone, deaf));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn the_whole_conversation_has_a_limit() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let agent = Agent::over(ours, 1000, Duration::from_secs(1)).expect("starts");
    let error = agent.ask::<Value>(Ask::Containers, Duration::from_secs(60)).expect_err("no answer");
    reason(error);
    let mut said = String::new();
    theirs.read_to_string(&mut said).expect("the socket is closed");
    assert!(said.contains("containers"), "{said}");
}

#[test]
fn the_end_is_announced() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let agent = Agent::over(ours, 1000, Duration::from_secs(20)).expect("starts");
    let worker = thread::spawn(move || {
        let mut lines = Lines::new(theirs.try_clone().expect("clones"), LONGEST, MOST);
        let line = lines.next(Instant::now() + Duration::from_secs(20)).expect("reads").expect("comes");
        theirs.write_all(b"{\"id\":0,\"result\":{\"Ok\":null}}\n").expect("writes");
        line
    });
    drop(agent);
    assert_eq!(worker.join().expect("ends"), br#"{"id":0,"ask":"bye"}"#);
}
