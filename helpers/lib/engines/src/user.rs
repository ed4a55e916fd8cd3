// SPDX-License-Identifier: MIT
//! A user's own Podman: asked and ordered as that user, by way of the crate `as-user`. What it says is
//! that user's word: checked here, and good for that user's own containers only.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use as_user::{Agent, Ask, Bundle, is_container_id, is_container_name};
use serde::de::DeserializeOwned;
use step::Root;

use crate::numbers::Number;
use crate::{Error, Inspect};

/// The most containers of one user that are looked at.
const MOST: usize = 1000;

/// The most labels and variables of a container, and their longest.
const LABELS: usize = 200;
const LONGEST: usize = 4096;

/// The answer of the user's side. It is waited for beside what else is under way.
pub(crate) async fn ask<T: DeserializeOwned + Send + 'static>(
    agent: &Agent,
    ask: Ask,
    patience: Duration,
) -> Result<T, Error> {
    let agent = agent.clone();
    in_background(move || agent.ask(ask, patience)).await?.map_err(typed)
}

/// Opens a conversation with the user's side.
pub(crate) async fn open(root: &Root, uid: u32, budget: Duration) -> Result<Agent, Error> {
    let root = root.clone();
    in_background(move || Agent::open(&root, uid, budget))
        .await?
        .map_err(|error| Error::Unreachable { errno: None, reason: error.to_string() })
}

/// Ends it, without waiting for its end.
pub(crate) async fn end(agent: Agent) {
    // The conversation is over either way.
    let _ = in_background(move || drop(agent)).await;
}

/// Does work that blocks, while what else is under way goes on.
///
/// # Errors
/// It ended without a result.
pub async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Odd(error.to_string()))
}

pub(crate) async fn up(agent: &Agent, patience: Duration) -> Result<Vec<String>, Error> {
    let ids: Vec<String> = ask(agent, Ask::Containers, patience).await?;
    match ids.len() <= MOST && ids.iter().all(|id| is_container_id(id)) {
        true => Ok(ids),
        false => Err(Error::Odd("that is no list of containers".into())),
    }
}

pub(crate) async fn inspect(
    root: &Root,
    agent: &Agent,
    id: &str,
    patience: Duration,
) -> Result<Inspect, Error> {
    let container: Inspect = ask(agent, Ask::Inspect { id: id.to_owned() }, patience).await?;
    checked(root, agent.uid(), id, container)
}

pub(crate) async fn bundle(
    agent: &Agent,
    directory: &str,
    patience: Duration,
) -> Result<Vec<(String, Number)>, Error> {
    let bundle: Bundle = ask(agent, Ask::Bundle { directory: directory.to_owned() }, patience).await?;
    let nodes = bundle.nodes.into_iter().take(LABELS).filter(|(path, ..)| path.len() <= LONGEST);
    Ok(nodes.map(|(path, major, minor)| (path, (major, minor))).collect())
}

/// What is taken of a user's word about the container that was asked for.
pub(crate) fn checked(root: &Root, uid: u32, id: &str, mut container: Inspect) -> Result<Inspect, Error> {
    if container.id() != id {
        return Err(Error::Odd(format!("asked for {id:.12}, it answers for another container")));
    }
    if !is_container_name(container.name()) {
        return Err(Error::Odd(format!("{id:.12} has a name that no container can have")));
    }
    if let Some(config) = &mut container.config {
        if let Some(labels) = &mut config.labels {
            labels.retain(|name, value| name.len() <= LONGEST && value.len() <= LONGEST);
            *labels = std::mem::take(labels).into_iter().take(LABELS).collect();
        }
        if let Some(variables) = &mut config.env {
            variables.retain(|variable| variable.len() <= LONGEST);
            variables.truncate(LABELS);
        }
    }
    if let Some(state) = &mut container.state {
        state.pid = state.pid.filter(|pid| is_started_by(root, *pid, uid));
    }
    Ok(container)
}

/// Whether a process was started by one of the user's. A container's first is the child of its monitor,
/// which runs as the user.
fn is_started_by(root: &Root, pid: i64, uid: u32) -> bool {
    let status = fs::read_to_string(root.path(format!("/proc/{pid}/status"))).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
    let owner = |parent| Some(fs::metadata(root.path(format!("/proc/{parent}"))).ok()?.uid());
    parent.filter(|parent| *parent > 1).and_then(owner) == Some(uid)
}

fn typed(error: as_user::Error) -> Error {
    match error {
        as_user::Error::Gone => Error::Gone,
        as_user::Error::Refused(status, message) => Error::Refused { status, message },
        as_user::Error::Failed(reason) => Error::Unreachable { errno: None, reason },
        // To ask again is of no use.
        as_user::Error::Over { .. } => Error::Odd(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::State;

    fn container(id: &str, name: &str, pid: i64) -> Inspect {
        Inspect {
            id: Some(id.to_owned()),
            name: Some(name.to_owned()),
            state: Some(State { pid: Some(pid), ..State::default() }),
            ..Inspect::default()
        }
    }

    #[test]
    fn only_what_was_asked_for_is_taken() {
        let (root, id) = (Root::system(), "ab".repeat(32));
        let take = |container| checked(&root, 1000, &id, container);
        assert_eq!(take(container(&id, "job", 0)).expect("is good").name(), "job");
        for (other, name) in [("cd".repeat(32), "job"), (id.clone(), "job\nMAINPID=1"), (id.clone(), "")] {
            take(container(&other, name, 0)).expect_err("is not taken");
        }
    }

    #[test]
    fn a_process_of_anothers_is_no_first_process() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for (pid, parent) in [(1, 0), (7, 1), (8, 7), (9, 8)] {
            let process = root.path(format!("/proc/{pid}"));
            fs::create_dir_all(&process).expect("creates");
            fs::write(process.join("status"), format!("Name:\tx\nPPid:\t{parent}\n")).expect("writes");
        }
        let ours = fs::metadata(directory.path()).expect("is there").uid();
        let pid = |pid, uid| {
            let taken = checked(&root, uid, "a", container("a", "job", pid)).expect("is good");
            taken.state.and_then(|state| state.pid)
        };
        assert_eq!(pid(9, ours), Some(9));
        assert_eq!(pid(9, ours + 1), None, "its parent is another user's");
        assert_eq!(pid(7, ours), None, "its parent is PID 1");
        assert_eq!((pid(1, ours), pid(0, ours), pid(-1, ours), pid(77, ours)), (None, None, None, None));
    }

    /// What root makes of a user's side that answers every question with `answer`.
    fn containers(answer: &'static str) -> Result<Vec<String>, Error> {
        use std::io::{BufRead, BufReader, Write};
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        std::thread::spawn(move || {
            let mut line = String::new();
            BufReader::new(theirs.try_clone().expect("clones")).read_line(&mut line).expect("reads");
            let _ = (&theirs).write_all(format!("{{\"id\":0,\"result\":{answer}}}\n").as_bytes());
        });
        let agent = Agent::over(ours, 1000, Duration::from_secs(5)).expect("starts");
        crate::wait_for(up(&agent, Duration::from_secs(2))).expect("runs")
    }

    #[test]
    fn ids_that_are_orders_are_none() {
        assert_eq!(containers(r#"{"Ok":[]}"#), Ok(Vec::new()));
        for answer in [r#"{"Ok":["../containers/prune#"]}"#, r#"{"Ok":["../build?remote=http://host&x="]}"#] {
            containers(answer).expect_err("is not taken");
        }
        let refused = containers(r#"{"Err":{"refused":[500,"no"]}}"#);
        assert_eq!(refused, Err(Error::Refused { status: 500, message: "no".into() }));
    }
}
