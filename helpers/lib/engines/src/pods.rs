// SPDX-License-Identifier: MIT
//! The containers of pods that have a GPU, by Kubernetes' own interface to containerd and CRI-O.

use cri::{Client, ContainerState};
use serde::Deserialize;
use serde_json::Value;
use step::Root;

use crate::answer::{Answer, holds};
use crate::bundle::Bundle;
use crate::inspect::{HostConfig, Inspect};
use crate::numbers::Machine;
use crate::running::{PODS, Running};
use crate::select::{self, Evidence, Runtime};
use crate::{Container, Engine, Error, Kind, Owner};

/// What a pod gets to end when it names no time, in seconds: Kubernetes' default.
const GRACE_PERIOD: i64 = 30;

/// The running containers of pods.
pub(crate) async fn ask(
    root: &Root,
    engine: &Engine,
    running: &Running,
    machine: &Machine,
    holding: &[holders::Container],
) -> Result<Answer, Error> {
    let client = client(root, &engine.socket)?;
    let sandboxes = client.sandboxes().await.map_err(typed)?;
    let mut containers = client.containers().await.map_err(typed)?;
    containers.retain(|container| container.state == i32::from(ContainerState::Running));
    containers.sort_by_key(|container| container.created_at);
    let mut answer = Answer {
        ids: containers.iter().map(|container| container.id.clone()).collect(),
        ..Answer::default()
    };
    // Of no use where nothing runs; and what does not tell it tells the runtime of each.
    let runtimes = match containers.is_empty() {
        true => Runtimes::default(),
        false => client.config().await.ok().flatten().map(|text| Runtimes::read(&text)).unwrap_or_default(),
    };
    for container in &containers {
        let label = |name| container.labels.get(name).map_or("", String::as_str);
        let pod = format!("{}/{}", label(cri::POD_NAMESPACE), label(cri::POD_NAME));
        let bundle = match engine.kind {
            Kind::CriO => running.of_monitor(root, &container.id),
            _ => running.of_containerd(root, PODS, &container.id),
        };
        let bundle = match bundle {
            Some(bundle) => Some(bundle),
            None => match client.container_info(&container.id).await.map_err(typed) {
                Ok(info) => info.as_deref().and_then(parse_info),
                // It ended while we asked.
                Err(Error::Gone) => continue,
                Err(error) => return Err(error),
            },
        };
        if bundle.is_none() {
            answer.unclear.push(format!(
                "container {} of pod {pod}: its OCI bundle is not found, and {} does not report it: it is not known whether it has a GPU",
                label(cri::CONTAINER_NAME), engine.kind
            ));
        }
        let bundle = bundle.unwrap_or_default();
        let host_config = HostConfig { privileged: Some(bundle.privileged), ..HostConfig::default() };
        let described = Inspect { host_config: Some(host_config), ..Inspect::default() };
        let sandbox = sandboxes.iter().find(|sandbox| sandbox.id == container.pod_sandbox_id);
        let handler = sandbox.map_or("", |sandbox| &sandbox.runtime_handler);
        let program = bundle.runtime.as_deref().or(running.runtime(0, &container.id));
        let first = bundle.pid;
        let holds = holds(root, holding, None, &container.id, first);
        let runtime = runtimes.of(handler, program);
        let evidence = Evidence { bundle: Some(&bundle), runtime, holds, ..Evidence::default() };
        let why = select::why(&described, machine, evidence);
        if why.is_empty() {
            continue;
        }
        let labels = sandbox.map(|sandbox| &sandbox.labels);
        let is_labelled = |name: &str| labels.is_some_and(|labels| labels.contains_key(name));
        let grace = container.annotations.get(cri::GRACE_PERIOD).and_then(|seconds| seconds.parse().ok());
        answer.containers.push(Container {
            engine: engine.kind,
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
    Ok(answer)
}

/// What the runtime itself tells of a container.
fn parse_info(info: &str) -> Option<Bundle> {
    #[derive(Deserialize)]
    struct Info {
        pid: Option<i32>,
        #[serde(rename = "runtimeSpec")]
        spec: Value,
    }
    let Info { pid, spec } = serde_json::from_str(info).ok()?;
    let bundle = Bundle::parse(spec.is_object().then(|| spec.to_string())?.as_bytes())?;
    Some(Bundle { pid: pid.filter(|pid| *pid > 0), ..bundle })
}

/// The runtimes of an engine of pods: their names and programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Runtimes {
    usual: Option<String>,
    programs: Vec<(String, String)>,
}

impl Runtimes {
    /// Reads containerd's configuration, which is JSON, or CRI-O's, which is TOML.
    fn read(text: &str) -> Self {
        match serde_json::from_str::<Value>(text) {
            Ok(config) => Self::of_containerd(&config["containerd"]),
            Err(_) => Self::of_crio(text),
        }
    }

    fn of_containerd(config: &Value) -> Self {
        let programs = config["runtimes"].as_object().into_iter().flatten().filter_map(|(name, runtime)| {
            Some((name.clone(), runtime["options"]["BinaryName"].as_str()?.to_owned()))
        });
        let usual = config["defaultRuntimeName"].as_str().filter(|name| !name.is_empty());
        Self { usual: usual.map(str::to_owned), programs: programs.collect() }
    }

    fn of_crio(text: &str) -> Self {
        let mut runtimes = Self::default();
        let mut of = None;
        for line in text.lines().map(str::trim) {
            if let Some(table) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                of = table
                    .strip_prefix("crio.runtime.runtimes.")
                    .map(|name| name.trim_matches('"').to_owned());
            } else if let Some((key, value)) = line.split_once('=') {
                let value = value.trim().trim_matches('"').to_owned();
                match (key.trim(), &of) {
                    ("default_runtime", None) => runtimes.usual = Some(value),
                    ("runtime_path", Some(name)) => runtimes.programs.push((name.clone(), value)),
                    _ => {}
                }
            }
        }
        runtimes
    }

    /// The runtime of a pod with this `handler`, which is empty for the engine's usual one. `program` is what
    /// the bundle tells.
    fn of<'a>(&'a self, handler: &'a str, program: Option<&'a str>) -> Runtime<'a> {
        let is_nvidias = |name: &str| {
            let known = self.programs.iter().find(|(known, _)| known == name);
            select::is_nvidia_runtime(name)
                || known.is_some_and(|(_, program)| select::is_nvidia_runtime(program))
        };
        let usual = self.usual.as_deref();
        match (handler, usual) {
            ("", Some(name)) if is_nvidias(name) => Runtime::Usual(name),
            (name, Some(usual)) if name == usual && is_nvidias(name) => Runtime::Usual(name),
            (name, _) if !name.is_empty() && is_nvidias(name) => Runtime::Chosen(name),
            _ => match program.filter(|program| select::is_nvidia_runtime(program)) {
                Some(program) => Runtime::Usual(program),
                None => Runtime::Other,
            },
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_of_a_pod_is_that_of_its_class_or_the_usual_one() {
        let json = r#"{"containerd":{"defaultRuntimeName":"runc","runtimes":{
            "runc":{"runtimeType":"io.containerd.runc.v2","options":{"BinaryName":""}},
            "gpu":{"options":{"BinaryName":"/usr/local/nvidia/toolkit/nvidia-container-runtime"}},
            "kata":{"runtimeType":"io.containerd.kata.v2"}}}}"#;
        let toml = "[crio.runtime]\ndefault_runtime = \"runc\"\n[crio.runtime.runtimes.runc]\nruntime_path = \"\"\n\
            [crio.runtime.runtimes.gpu]\nruntime_path = \"/usr/bin/nvidia-container-runtime\"\n";
        for text in [json, toml] {
            let runtimes = Runtimes::read(text);
            assert_eq!(runtimes.of("", None), Runtime::Other, "{text}");
            assert_eq!(runtimes.of("kata", None), Runtime::Other, "{text}");
            assert_eq!(runtimes.of("gpu", None), Runtime::Chosen("gpu"), "{text}");
            assert_eq!(runtimes.of("nvidia", None), Runtime::Chosen("nvidia"), "{text}");
            let usual = Runtimes::read(
                &text.replace("Name\":\"runc", "Name\":\"gpu").replace("= \"runc\"", "= \"gpu\""),
            );
            assert_eq!(usual.of("", None), Runtime::Usual("gpu"), "{text}");
            assert_eq!(usual.of("gpu", None), Runtime::Usual("gpu"), "{text}");
            assert_eq!(usual.of("runc", None), Runtime::Other, "{text}");
        }
        // It says nothing: the bundle's annotation does.
        let program = "/usr/bin/nvidia-container-runtime.cdi";
        assert_eq!(Runtimes::default().of("", Some(program)), Runtime::Usual(program));
        assert_eq!(Runtimes::default().of("", Some("/usr/bin/runc")), Runtime::Other);
        assert_eq!(Runtimes::read("no configuration"), Runtimes::default());
    }

    #[test]
    fn what_the_runtime_tells_stands_for_the_bundle() {
        let spec = r#"{"linux":{"devices":[{"path":"/dev/nvidia0","type":"c","major":195,"minor":0}]}}"#;
        let bundle =
            parse_info(&format!(r#"{{"pid":42,"runtimeSpec":{spec},"config":{{}}}}"#)).expect("tells");
        assert_eq!((bundle.pid, bundle.devices.len()), (Some(42), 1));
        for nothing in ["", "{}", r#"{"pid":42}"#, r#"{"runtimeSpec":null}"#] {
            assert_eq!(parse_info(nothing), None, "{nothing}");
        }
    }
}
