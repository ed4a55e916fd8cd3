// SPDX-License-Identifier: MIT
//! All engines asked, side by side.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use step::Root;

use crate::answer::{Answer, holds};
use crate::api::Runtimes;
use crate::bundle::Bundle;
use crate::clients::Clients;
use crate::find::{find, of_pods};
use crate::foreign;
use crate::inspect::Inspect;
use crate::numbers::{Host, Machine, Unseen};
use crate::running::{DOCKERS, Running};
use crate::select::{self, Evidence, Runtime};
use crate::swarm;
use crate::{
    Client, Container, Engine, Error, Kind, Owner, Phase, Presence, SURVEY_SCHEMA, Survey, owner, pods,
};

/// How many engines are asked at once: each user may have one.
const ENGINES: usize = 64;

/// How long the Podman of a user may take to say what runs there.
const BUDGET: Duration = Duration::from_secs(45);

/// Runs a future to its end on this thread.
///
/// # Errors
/// The kernel has no more of what it takes.
pub fn wait_for<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// Does `work` for each of `items`, `parallel` at once (0 for four a core), and returns the
/// results in the order of the items. None waits for another's end.
pub async fn side_by_side<I, T, F: Future<Output = T>>(
    items: impl IntoIterator<Item = I>,
    parallel: usize,
    work: impl Fn(I) -> F,
) -> Vec<T> {
    let parallel = match parallel {
        0 => std::thread::available_parallelism().map_or(4, |cores| cores.get() * 4),
        parallel => parallel,
    };
    // Unordered: a slow one keeps only its own place busy.
    let numbered = items.into_iter().enumerate().map(|(number, item)| {
        let work = work(item);
        async move { (number, work.await) }
    });
    let mut results: Vec<(usize, T)> = stream::iter(numbered).buffer_unordered(parallel).collect().await;
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Asks the engines for the running and paused containers that have a GPU.
///
/// `holding` are containers, by the control groups of processes that were seen to hold one: claims, that
/// count where the engine's own process of the container is in the same group. An engine that cannot be
/// asked is named in the answer and is no error.
///
/// # Errors
/// `/proc` cannot be read.
pub async fn gpu_containers(
    root: &Root,
    holding: &[holders::Container],
    parallel: usize,
) -> io::Result<Survey> {
    let machine = Machine::load(root)?;
    let running = Running::look(root)?;
    let mut survey = Survey {
        schema: SURVEY_SCHEMA.to_owned(),
        engines: Vec::new(),
        dockerd: running.dockerd().map(|daemon| daemon.started),
        containers: Vec::new(),
        unknown: Vec::new(),
        unclear: Vec::new(),
    };
    let mut known = BTreeSet::new();
    let users = running.podmans().into_iter().flatten().map(|uid| (Kind::Podman, Some(uid)));
    let engines = [(Kind::Docker, None), (Kind::Podman, None)].into_iter().chain(users);
    let engines = engines.map(|(kind, user)| find(root, kind, user, &running));
    let engines = engines.chain(of_pods(root, &running));
    // Side by side: a user's side that is slow holds up no other.
    let answers = side_by_side(engines, ENGINES, async |engine: Engine| {
        let answer = match (&engine.presence, engine.kind) {
            (Presence::Ready, Kind::Containerd | Kind::CriO) => {
                pods::ask(root, &engine, &running, &machine, holding).await
            }
            (Presence::Ready, _) => ask(root, &engine, &running, &machine, holding, parallel).await,
            _ => Ok(Answer::default()),
        };
        (engine, answer)
    });
    for (mut engine, answer) in answers.await {
        match answer {
            Ok(answer) => {
                survey.containers.extend(answer.containers);
                survey.unclear.extend(answer.unclear);
                known.extend(answer.ids);
            }
            Err(error) => {
                let errno = match &error {
                    Error::Unreachable { errno, .. } => *errno,
                    _ => None,
                };
                let reason = format!("list the containers by {}: {error}", engine.socket);
                engine.presence = Presence::Unreachable { errno, reason };
            }
        }
        survey.engines.push(engine);
    }
    let foreign = foreign::containers(root, &running, &machine, holding, &known);
    known.extend(foreign.iter().map(|container| container.id.clone()));
    survey.containers.extend(foreign);
    // The question may have started it, where a socket of systemd's stands for it.
    if survey.dockerd.is_none() {
        survey.dockerd = Running::look(root)?.dockerd().map(|daemon| daemon.started);
    }
    survey.unknown = holding.iter().map(|claim| claim.id.clone()).filter(|id| !known.contains(id)).collect();
    Ok(survey)
}

/// The containers of one engine.
async fn ask(
    root: &Root,
    engine: &Engine,
    running: &Running,
    machine: &Machine,
    holding: &[holders::Container],
    parallel: usize,
) -> Result<Answer, Error> {
    let client = match engine.user {
        None => Client::new(root, engine.kind, &engine.socket)?,
        Some(uid) => Client::of_user(root, uid, BUDGET).await?,
    };
    let found = ask_by(root, engine, &client, running, machine, holding, parallel).await;
    client.end().await;
    found
}

#[allow(clippy::too_many_arguments, reason = "what is known of the machine, beside whom to ask")]
async fn ask_by(
    root: &Root,
    engine: &Engine,
    client: &Client,
    running: &Running,
    machine: &Machine,
    holding: &[holders::Container],
    parallel: usize,
) -> Result<Answer, Error> {
    let ids = client.up().await?;
    let answers = side_by_side(&ids, parallel, async |id: &String| client.inspect(id).await).await;
    let mut up = Vec::new();
    for answer in answers {
        match answer {
            Ok(container) => up.push(container),
            // It ended while we asked.
            Err(Error::Gone) => {}
            Err(error) => return Err(error),
        }
    }
    let mut answer = Answer { ids, ..Answer::default() };
    if up.is_empty() {
        return Ok(answer);
    }
    // Podman's answer names the runtime itself; and for this answer dockerd starts programs.
    let runtimes = match engine.kind {
        Kind::Docker if !up.iter().all(is_by_stock_runtime) => client.runtimes().await?,
        _ => Runtimes::default(),
    };
    let clients = Clients::look(root).map_err(odd)?;
    up.sort_by(|one, other| one.created.cmp(&other.created));
    let swarm = swarm::resources(root);
    let unseen = Unseen(machine);
    let host: &dyn Host = if engine.user.is_some() { &unseen } else { machine };
    for container in up {
        if matches!(container.phase(), Phase::Down | Phase::Removing) {
            continue;
        }
        let id = container.id();
        let bundle = match (engine.user, engine.kind) {
            (None, Kind::Docker) => running.of_containerd(root, DOCKERS, id),
            (None, _) => running.of_monitor(root, id),
            (Some(uid), _) => match running.bundle(uid, id) {
                Some(place) => Some(Bundle { devices: client.bundle(place).await?, ..Bundle::default() }),
                None => None,
            },
        };
        // Between two starts, and once it has ended, there is none.
        if bundle.is_none() && runs(root, &container) {
            answer.unclear.push(format!(
                "{engine} container {} ({id:.12}): its OCI bundle is not found, so a GPU that its runtime gave it does not show",
                container.name()
            ));
        }
        let evidence = Evidence {
            bundle: bundle.as_ref(),
            runtime: runtime(&container, engine, running, bundle.as_ref(), &runtimes),
            holds: holds(root, holding, engine.user, id, container.pid()),
            swarm: &swarm,
        };
        let why = select::why(&container, host, evidence);
        if !why.is_empty() {
            answer.containers.push(describe(root, engine, &container, &clients, why));
        }
    }
    Ok(answer)
}

/// Whether Docker's own runtime was chosen for the container. dockerd writes the usual one down when it makes it, and
/// accepts no other program under this name (`runtime name 'runc' is reserved`).
fn is_by_stock_runtime(container: &Inspect) -> bool {
    let given = container.host_config.as_ref();
    given.and_then(|given| given.runtime.as_deref()) == Some("runc")
}

/// Whether the first process of a container is there.
fn runs(root: &Root, container: &Inspect) -> bool {
    matches!(container.phase(), Phase::Running | Phase::Paused)
        && container.pid().is_some_and(|pid| root.path(format!("/proc/{pid}")).exists())
}

/// What its engine, its bundle and its monitor tell of its runtime.
fn runtime<'a>(
    container: &'a Inspect,
    engine: &Engine,
    running: &'a Running,
    bundle: Option<&'a Bundle>,
    runtimes: &'a Runtimes,
) -> Runtime<'a> {
    let usual = runtimes.default_runtime.as_deref().filter(|name| !name.is_empty());
    let asked = container.host_config.as_ref().and_then(|host| host.runtime.as_deref());
    // Podman says "oci" here, whatever it is.
    let asked = asked.filter(|name| !name.is_empty() && engine.kind == Kind::Docker);
    if let Some(name) = asked.or(usual)
        && runtimes.is_nvidias(name)
    {
        return if usual == Some(name) { Runtime::Usual(name) } else { Runtime::Chosen(name) };
    }
    let programs = [
        container.oci_runtime.as_deref(),
        running.runtime(engine.user.unwrap_or_default(), container.id()),
        bundle.and_then(|bundle| bundle.runtime.as_deref()),
    ];
    // Whether that was chosen is not known: the variable decides.
    let program = programs.into_iter().flatten().find(|program| select::is_nvidia_runtime(program));
    program.map_or(Runtime::Other, Runtime::Usual)
}

/// The first process of a container. A user's engine may name any: only one that is that user's, or in a
/// user namespace of that user's, is believed.
fn first_process(root: &Root, engine: &Engine, container: &Inspect) -> i32 {
    let believed = |pid: &i32| engine.user.is_none_or(|uid| holders::is_of_user(root, *pid, uid));
    container.pid().filter(believed).unwrap_or_default()
}

fn odd(error: io::Error) -> Error {
    Error::Odd(format!("look through /proc: {error}"))
}

fn describe(
    root: &Root,
    engine: &Engine,
    container: &Inspect,
    clients: &Clients,
    why: Vec<crate::Why>,
) -> Container {
    let owner: Owner = owner::of(root, engine, container, clients);
    Container {
        engine: engine.kind,
        user: engine.user,
        socket: engine.socket.clone(),
        id: container.id().to_owned(),
        name: container.name().to_owned(),
        paused: container.phase() == Phase::Paused,
        auto_remove: container.auto_remove(),
        has_health_check: container.health().is_some(),
        restart: container.restart(),
        stop_timeout: container.stop_timeout(),
        owner,
        aliases: container.aliases(),
        needs: container.needs(),
        pid: first_process(root, engine, container),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn dockers_own_runtime_is_known_by_its_name() {
        for (host_config, expected) in [
            (r#"{"Runtime": "runc"}"#, true),
            (r#"{"Runtime": "nvidia"}"#, false),
            (r#"{"Runtime": ""}"#, false),
            ("{}", false),
            ("null", false),
        ] {
            let answer = format!(r#"{{"Id": "a", "HostConfig": {host_config}}}"#);
            let container: Inspect = serde_json::from_str(&answer).expect("is an answer");
            assert_eq!(is_by_stock_runtime(&container), expected, "{host_config}");
        }
    }

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_group_that_is_called_like_a_container_is_none_of_its() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let claim = |path: &str| match holders::owner(format!("0::{path}\n").as_bytes()) {
            holders::Owner::Container(container) => container,
            other => panic!("{path}: {other:?}"),
        };
        let holds = |first: &str, user, holder: &str| {
            fs::create_dir_all(root.path("/proc/7")).expect("creates");
            fs::write(root.path("/proc/7/cgroup"), format!("0::{first}\n")).expect("writes");
            holds(&root, &[claim(holder)], user, ID, Some(7))
        };
        let docker = format!("/system.slice/docker-{ID}.scope");
        let users = format!("/user.slice/user-7.slice/user@7.service/docker-{ID}.scope");
        let podman = format!("/user.slice/user-7.slice/user@7.service/user.slice/libpod-{ID}.scope");
        assert!(holds(&docker, None, &docker));
        // PID 1 of the container, or the holder, in a group of its own in there.
        assert!(holds(&format!("{docker}/init.scope"), None, &docker));
        assert!(holds(&format!("{docker}/init.scope"), None, &format!("{docker}/system.slice/x.service")));
        assert!(holds(&format!("{podman}/container"), Some(7), &podman));
        // Called like it: by a user, by a service that may make groups, by another user's engine.
        assert!(!holds(&docker, None, &users));
        assert!(!holds(&docker, None, &format!("/system.slice/x.service/docker-{ID}.scope")));
        assert!(!holds(&docker, None, &format!("/system.slice/docker-{ID}.scope.d/docker-{ID}.scope")));
        assert!(!holds(&podman, Some(8), &podman));
        assert!(!holds(&users, Some(7), &podman));
        // The engine says it does not run.
        assert!(!super::holds(&root, &[claim(&docker)], None, ID, None));
        assert!(!super::holds(&root, &[claim(&docker)], None, "0", Some(7)));
    }
}
