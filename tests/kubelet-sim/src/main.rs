// SPDX-License-Identifier: MIT
//! A STAND-IN for the kubelet, which Debian does not have. Real is what it asks: containerd, by the same
//! interface, with the labels and annotations that a kubelet puts on.
//!
//! It does of a kubelet what a stop and a start show: for each pod in a folder, one JSON file each, it makes
//! a sandbox and starts the containers; one that has ended is recreated and started, where the pod's
//! restart policy says so; what runs when the kubelet ends goes on. There are no probes, no volumes, no
//! network but the machine's, no device plugins and no control plane.

#![forbid(unsafe_code)]

mod messages;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use cri::{Client, ContainerState, SandboxState};
use serde::Deserialize;

use messages::{
    ContainerConfig, CreateContainer, Created, Device, Image, LinuxSandbox, Namespaces, Nothing, RunSandbox,
    Sandbox, SandboxConfig, SecurityContext, StartContainer,
};

/// How long the runtime gets for an order.
const PATIENCE: Duration = Duration::from_secs(120);

/// A pod, as far as it is needed here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pod {
    namespace: String,
    name: String,
    uid: String,
    #[serde(default)]
    labels: HashMap<String, String>,
    /// `Always`, or `Never`.
    restart_policy: String,
    grace_period: u64,
    containers: Vec<Container>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Container {
    name: String,
    image: String,
    #[serde(default)]
    devices: Vec<String>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, folder] = arguments.as_slice() else { anyhow::bail!("usage: kubelet SOCKET FOLDER") };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let client = Client::new(socket)?;
        loop {
            for pod in pods(Path::new(folder))? {
                // As the kubelet does: said, and tried again.
                if let Err(error) = sync(&client, &pod).await {
                    eprintln!("{}/{}: {error:#}", pod.namespace, pod.name);
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}

fn pods(folder: &Path) -> Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        // One that was taken away since.
        let Ok(text) = fs::read(&path) else { continue };
        pods.push(serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))?);
    }
    Ok(pods)
}

/// Makes of a pod what is not there.
async fn sync(client: &Client, pod: &Pod) -> Result<()> {
    let mut sandboxes = client.sandboxes().await?;
    sandboxes.retain(|sandbox| sandbox.metadata.as_ref().is_some_and(|metadata| metadata.uid == pod.uid));
    let config = SandboxConfig {
        metadata: Some(Sandbox {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            // Those of an earlier boot are still known, and their names taken.
            attempt: u32::try_from(sandboxes.len())?,
        }),
        labels: labels(pod, None),
        linux: Some(LinuxSandbox {
            cgroup_parent: format!("/kubepods/besteffort/pod{}", pod.uid),
            security: Some(SecurityContext {
                namespaces: Some(Namespaces { network: NODE, pid: CONTAINER }),
            }),
        }),
    };
    let ready = sandboxes.into_iter().find(|sandbox| sandbox.state == i32::from(SandboxState::Ready));
    let sandbox = match ready {
        Some(sandbox) => sandbox.id,
        None => {
            let order = RunSandbox { config: Some(config.clone()) };
            client.call::<_, Created>("RunPodSandbox", order, PATIENCE).await.context("make the sandbox")?.id
        }
    };
    let there = client.containers().await?;
    for container in &pod.containers {
        // In its earlier sandboxes as well: their names are taken.
        let mut tries: Vec<_> = there
            .iter()
            .filter(|one| one.labels.get(cri::POD_UID) == Some(&pod.uid))
            .filter(|one| one.labels.get(cri::CONTAINER_NAME) == Some(&container.name))
            .collect();
        tries.sort_by_key(|one| one.created_at);
        let last = tries.last();
        if last.is_some_and(|last| {
            last.state == i32::from(ContainerState::Running) || pod.restart_policy == "Never"
        }) {
            continue;
        }
        let attempt = u32::try_from(tries.len())?;
        start(client, pod, container, attempt, &sandbox, &config)
            .await
            .with_context(|| format!("start {}", container.name))?;
    }
    Ok(())
}

/// The machine's network.
const NODE: i32 = 2;
/// Each container has its own processes.
const CONTAINER: i32 = 1;

async fn start(
    client: &Client,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    sandbox: &str,
    sandbox_config: &SandboxConfig,
) -> Result<()> {
    let device = |path: &String| Device {
        container_path: path.clone(),
        host_path: path.clone(),
        permissions: "rwm".to_owned(),
    };
    let grace = (cri::GRACE_PERIOD.to_owned(), pod.grace_period.to_string());
    let config = ContainerConfig {
        metadata: Some(cri::Metadata { name: container.name.clone(), attempt }),
        image: Some(Image { name: container.image.clone() }),
        devices: container.devices.iter().map(device).collect(),
        labels: labels(pod, Some(container)),
        annotations: HashMap::from([grace]),
    };
    let order = CreateContainer {
        sandbox: sandbox.to_owned(),
        config: Some(config),
        sandbox_config: Some(sandbox_config.clone()),
    };
    let created: Created = client.call("CreateContainer", order, PATIENCE).await?;
    let _: Nothing = client.call("StartContainer", StartContainer { id: created.id }, PATIENCE).await?;
    Ok(())
}

fn labels(pod: &Pod, container: Option<&Container>) -> HashMap<String, String> {
    let mut labels = HashMap::from(
        [(cri::POD_NAME, &pod.name), (cri::POD_NAMESPACE, &pod.namespace), (cri::POD_UID, &pod.uid)]
            .map(|(name, value)| (name.to_owned(), value.clone())),
    );
    match container {
        Some(container) => {
            labels.insert(cri::CONTAINER_NAME.to_owned(), container.name.clone());
        }
        // Only a sandbox has the pod's own.
        None => labels.extend(pod.labels.clone()),
    }
    labels
}
