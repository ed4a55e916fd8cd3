//! The device nodes that a container's runtime was told to make, with their numbers.
//!
//! The engine's own answer leaves out what was injected at the start: Podman does not name CDI
//! devices, and NVIDIA's runtime adds nodes behind the engine's back. The OCI bundle on disk, which
//! the runtime was started with, has them all.

use std::fs;

use serde::Deserialize;
use step::Root;

use crate::Kind;
use crate::numbers::Number;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    devices: Vec<Node>,
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
    // The id becomes a part of a path.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Vec::new();
    }
    let places = match engine {
        // The second where dockerd runs a containerd of its own.
        Kind::Docker => vec![
            format!("/run/containerd/io.containerd.runtime.v2.task/moby/{id}/config.json"),
            format!("/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{id}/config.json"),
        ],
        Kind::Podman => {
            vec![format!("/var/lib/containers/storage/overlay-containers/{id}/userdata/config.json")]
        }
    };
    places.iter().find_map(|place| fs::read(root.path(place)).ok()).map_or_else(Vec::new, |text| parse(&text))
}

fn parse(text: &[u8]) -> Vec<(String, Number)> {
    let spec: Spec = serde_json::from_slice(text).unwrap_or_default();
    spec.linux
        .devices
        .into_iter()
        .filter(|node| node.kind == "c" || node.kind == "u")
        .map(|node| (node.path, (node.major, node.minor)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_names_nodes_by_number() {
        let text = br#"{"ociVersion":"1.0.2","linux":{"devices":[
            {"path":"/dev/nvidiactl","type":"c","major":195,"minor":255,"fileMode":438},
            {"path":"/dev/sda","type":"b","major":8,"minor":0}],"namespaces":[]}}"#;
        assert_eq!(parse(text), [("/dev/nvidiactl".to_owned(), (195, 255))]);
        assert_eq!(parse(b"{}"), []);
        assert_eq!(parse(b"{\"linux\":{\"devices\":null}}"), [], "odd answers are no answer");
        assert_eq!(devices(&Root::system(), Kind::Docker, "../../etc"), []);
    }
}
