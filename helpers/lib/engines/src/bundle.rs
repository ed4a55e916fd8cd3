//! The device nodes that a container's runtime was told to make, with their numbers.
//!
//! The engine's own answer leaves out what was injected at the start: Podman does not name CDI
//! devices, and NVIDIA's runtime adds nodes behind the engine's back. The OCI bundle on disk, which
//! the runtime was started with, has them all.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{major, minor};
use serde::Deserialize;
use step::Root;

use crate::Kind;
use crate::numbers::Number;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    linux: Linux,
    mounts: Vec<Mount>,
    process: Process,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Process {
    env: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Mount {
    source: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    devices: Vec<Node>,
    resources: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    devices: Vec<Rule>,
}

/// Which devices may be opened; without a kind or a number, all.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Rule {
    allow: bool,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Node {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    major: u32,
    minor: u32,
}

/// The character devices of the container's bundle. Empty where the bundle is not where the engine
/// puts it by default: then the engine's answer has to do.
pub fn devices(root: &Root, engine: Kind, id: &str) -> Vec<(String, Number)> {
    spec(root, engine, id).map_or_else(Vec::new, |spec| nodes(&spec))
}

/// The same of a user's own Podman, whose bundles lie anywhere. Without the right to make nodes it
/// mounts the host's.
pub fn mounted(root: &Root, directory: &str) -> Vec<(String, Number)> {
    let Ok(text) = fs::read(root.path(directory).join("config.json")) else { return Vec::new() };
    let spec = parse(&text);
    let sources = spec.mounts.iter().filter_map(|mount| {
        let node = fs::metadata(root.path(&mount.source)).ok()?;
        let number = (major(node.rdev()), minor(node.rdev()));
        node.file_type().is_char_device().then(|| (mount.source.clone(), number))
    });
    sources.chain(nodes(&spec)).collect()
}

/// What a container was started with, where its engine does not tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The character devices.
    pub devices: Vec<(String, Number)>,
    /// The environment.
    pub environment: Vec<String>,
    /// Whether it may open every device of the host.
    pub privileged: bool,
}

/// What the container was started with; nothing where the bundle is not where the engine puts it by
/// default.
pub fn given(root: &Root, engine: Kind, id: &str) -> Given {
    let spec = spec(root, engine, id).unwrap_or_default();
    let all = |rule: &Rule| {
        rule.allow
            && rule.kind.as_deref().is_none_or(|kind| kind == "a")
            && rule.major.is_none_or(|at| at < 0)
    };
    Given {
        devices: nodes(&spec),
        privileged: spec.linux.resources.devices.iter().any(all),
        environment: spec.process.env,
    }
}

/// The first process of a pod's container, in our pid namespace: its shim notes it.
pub fn first_process(root: &Root, id: &str) -> Option<i32> {
    let note = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/init.pid");
    fs::read_to_string(root.path(note)).ok()?.trim().parse().ok()
}

fn spec(root: &Root, engine: Kind, id: &str) -> Option<Spec> {
    // The id becomes a part of a path.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let places = match engine {
        // The second where dockerd runs a containerd of its own.
        Kind::Docker => vec![
            format!("/run/containerd/io.containerd.runtime.v2.task/moby/{id}/config.json"),
            format!("/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{id}/config.json"),
        ],
        Kind::Containerd => {
            vec![format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json")]
        }
        Kind::Podman => {
            vec![format!("/var/lib/containers/storage/overlay-containers/{id}/userdata/config.json")]
        }
    };
    places.iter().find_map(|place| fs::read(root.path(place)).ok()).map(|text| parse(&text))
}

fn parse(text: &[u8]) -> Spec {
    serde_json::from_slice(text).unwrap_or_default()
}

fn nodes(spec: &Spec) -> Vec<(String, Number)> {
    let devices = spec.linux.devices.iter().filter(|node| node.kind == "c" || node.kind == "u");
    devices.map(|node| (node.path.clone(), (node.major, node.minor))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_names_nodes_by_number() {
        let text = br#"{"ociVersion":"1.0.2","linux":{"devices":[
            {"path":"/dev/nvidiactl","type":"c","major":195,"minor":255,"fileMode":438},
            {"path":"/dev/sda","type":"b","major":8,"minor":0}],"namespaces":[]}}"#;
        assert_eq!(nodes(&parse(text)), [("/dev/nvidiactl".to_owned(), (195, 255))]);
        assert_eq!(nodes(&parse(b"{}")), []);
        assert_eq!(nodes(&parse(b"{\"linux\":{\"devices\":null}}")), [], "odd answers are no answer");
        assert_eq!(devices(&Root::system(), Kind::Docker, "../../etc"), []);
    }

    #[test]
    fn a_privileged_container_may_open_all() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let bundle = root.path("/run/containerd/io.containerd.runtime.v2.task/k8s.io/0a");
        fs::create_dir_all(&bundle).expect("creates");
        let given = |rules: &str| {
            let text = format!(
                r#"{{"process":{{"env":["A=1"]}},"linux":{{"resources":{{"devices":[{rules}]}},
                "devices":[{{"path":"/dev/nvidia0","type":"c","major":195,"minor":0}}]}}}}"#
            );
            fs::write(bundle.join("config.json"), text).expect("writes");
            super::given(&root, Kind::Containerd, "0a")
        };
        let one = r#"{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":195,"access":"rw"}"#;
        let devices = vec![("/dev/nvidia0".to_owned(), (195, 0))];
        let expected = Given { devices, environment: vec!["A=1".into()], privileged: false };
        assert_eq!(given(one), expected);
        assert!(given(r#"{"allow":true,"access":"rwm"}"#).privileged);
        assert!(given(r#"{"allow":true,"type":"a","major":-1,"minor":-1,"access":"rwm"}"#).privileged);
    }

    #[test]
    fn a_users_podman_mounts_the_hosts_nodes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = r#"{"mounts":[{"type":"bind","source":"/dev/null"},{"type":"proc","source":"proc"},
            {"type":"bind","source":"/etc"}],"linux":{"devices":null}}"#;
        fs::write(directory.path().join("config.json"), text).expect("writes");
        let place = directory.path().to_str().expect("is text");
        assert_eq!(mounted(&Root::system(), place), []);
        fs::write(directory.path().join("config.json"), text.replace(r#","linux":{"devices":null}"#, ""))
            .expect("writes");
        assert_eq!(mounted(&Root::system(), place), [("/dev/null".to_owned(), (1, 3))]);
    }
}
