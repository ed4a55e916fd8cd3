//! The containers of pods that have a GPU, by Kubernetes' own interface to containerd.

use cri::{Client, ContainerState};
use step::Root;

use crate::find::Running;
use crate::inspect::{Config, HostConfig, Inspect};
use crate::numbers::Machine;
use crate::select::{self, Beside};
use crate::survey::holds;
use crate::{Container, Engine, Error, Kind, Owner, bundle};

/// What a pod gets to end when it names no time, in seconds: Kubernetes' default.
const GRACE_PERIOD: i64 = 30;

/// The running containers of pods that have a GPU, oldest first, and the ids of all that run.
pub(crate) async fn ask(
    root: &Root,
    engine: &Engine,
    running: &Running,
    machine: &Machine,
    holding: &[holders::Container],
) -> Result<(Vec<Container>, Vec<String>), Error> {
    let client = client(root, &engine.socket)?;
    let sandboxes = client.sandboxes().await.map_err(typed)?;
    let mut containers = client.containers().await.map_err(typed)?;
    containers.retain(|container| container.state == i32::from(ContainerState::Running));
    containers.sort_by_key(|container| container.created_at);
    let mut found = Vec::new();
    for container in &containers {
        let given = bundle::given(root, Kind::Containerd, &container.id);
        let described = Inspect {
            config: Some(Config { env: Some(given.environment), ..Config::default() }),
            host_config: Some(HostConfig { privileged: Some(given.privileged), ..HostConfig::default() }),
            ..Inspect::default()
        };
        let first = bundle::first_process(root, &container.id);
        let holds = holds(root, holding, None, &container.id, first);
        let why =
            select::why(&described, machine, Beside { bundle: &given.devices, default_runtime: None, holds });
        if why.is_empty() {
            continue;
        }
        let labels = sandboxes
            .iter()
            .find(|sandbox| sandbox.id == container.pod_sandbox_id)
            .map(|sandbox| &sandbox.labels);
        let is_labelled = |name: &str| labels.is_some_and(|labels| labels.contains_key(name));
        let label = |name| container.labels.get(name).map_or("", String::as_str);
        let pod = format!("{}/{}", label(cri::POD_NAMESPACE), label(cri::POD_NAME));
        let grace = container.annotations.get(cri::GRACE_PERIOD).and_then(|seconds| seconds.parse().ok());
        found.push(Container {
            engine: Kind::Containerd,
            user: None,
            socket: engine.socket.clone(),
            id: container.id.clone(),
            name: format!("{pod}/{}", label(cri::CONTAINER_NAME)),
            paused: false,
            auto_remove: false,
            has_health_check: false,
            restart: String::new(),
            stop_timeout: Some(grace.unwrap_or(GRACE_PERIOD)),
            owner: Owner::Kubernetes {
                pod,
                uid: label(cri::POD_UID).to_owned(),
                // The controller of DaemonSets puts both on its pods, and no other controller does.
                daemon_set: is_labelled("pod-template-generation") && is_labelled("controller-revision-hash"),
                kubelet: running.kubelet().map(str::to_owned),
            },
            aliases: vec![container.id.clone()],
            needs: Vec::new(),
            pid: first.unwrap_or_default(),
            why,
        });
    }
    Ok((found, containers.into_iter().map(|container| container.id).collect()))
}

/// The runtime behind `socket`.
///
/// # Errors
/// The path is no text.
pub fn client(root: &Root, socket: &str) -> Result<Client, Error> {
    let path = root.path(socket);
    let path = path.to_str().ok_or_else(|| Error::Odd(format!("{socket} is no text")))?;
    Client::new(path).map_err(typed)
}

/// What the runtime said, in the words for all engines.
pub fn typed(error: cri::Error) -> Error {
    match error {
        cri::Error::Gone => Error::Gone,
        cri::Error::Unreachable(reason) => Error::Unreachable { errno: None, reason },
        cri::Error::TimedOut(patience) => Error::TimedOut(patience),
        cri::Error::Refused { .. } => Error::Odd(error.to_string()),
    }
}
