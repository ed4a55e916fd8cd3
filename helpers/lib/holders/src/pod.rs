// SPDX-License-Identifier: MIT
//! What the container runtimes keep on disk about a container: which engine it is, and the pod's
//! name, which no cgroup tells.

use crate::model::{Container, Engine, Owner};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use step::Root;

/// Bundles are small; a larger one is none.
const LARGEST: u64 = 4 << 20;

/// The part of a bundle's `config.json` (OCI runtime specification) that is of use.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Completes what the cgroup says. Leaves it as it is where the files are not there or may not be
/// read.
pub(crate) fn complete(root: &Root, owner: &mut Owner) {
    let Owner::Container(container) = owner else { return };
    // These files are of root's engines, and an id is no secret.
    if container.uid.is_some() {
        return;
    }
    let id = container.id.clone();
    // containerd has a directory for each task in the namespace of its client.
    let task = |namespace: &str| format!("/run/containerd/io.containerd.runtime.v2.task/{namespace}/{id}");
    let bundles = [
        (Engine::Containerd, task("k8s.io")),
        (Engine::Docker, task("moby")),
        (Engine::Containerd, task("default")),
        (Engine::Crio, format!("/run/containers/storage/overlay-containers/{id}/userdata")),
    ];
    let Some((engine, bundle)) = bundles.into_iter().find(|(_, path)| root.path(path).exists()) else {
        return;
    };
    if container.engine == Engine::Unknown {
        container.engine = engine;
    }
    if container.pod.is_some() {
        name_pod(root, &bundle, container);
    }
}

fn name_pod(root: &Root, bundle: &str, container: &mut Container) {
    let path = root.path(bundle).join("config.json");
    if fs::metadata(&path).is_ok_and(|found| found.len() > LARGEST) {
        return;
    }
    let Some(bundle) = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Bundle>(&text).ok())
    else {
        return;
    };
    let annotation = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| bundle.annotations.get(*name))
            .map(|value| crate::text::escape(value.as_bytes()))
    };
    if let Some(pod) = &mut container.pod {
        pod.name = annotation(["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]);
        pod.namespace = annotation(["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pod;

    fn owner(engine: Engine, pod: bool) -> Owner {
        let pod = pod.then(|| Pod { uid: "u".into(), name: None, namespace: None });
        Owner::Container(Container {
            engine,
            id: "c0ffee".into(),
            uid: None,
            unit: None,
            group: String::new(),
            pod,
        })
    }

    fn completed(bundle: &str, config: &str, mut owner: Owner) -> Container {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(dir.path());
        let bundle = root.path(bundle);
        fs::create_dir_all(&bundle).expect("created");
        fs::write(bundle.join("config.json"), config).expect("written");
        complete(&root, &mut owner);
        match owner {
            Owner::Container(container) => container,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pods_are_named() {
        let config = r#"{"ociVersion":"1","annotations":{
            "io.kubernetes.cri.sandbox-name":"train-0","io.kubernetes.cri.sandbox-namespace":"ml"}}"#;
        let task = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/c0ffee";
        let found = completed(task, config, owner(Engine::Unknown, true));
        assert_eq!(found.engine, Engine::Containerd);
        let pod = found.pod.expect("a pod");
        assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("train-0"), Some("ml")));

        let config = r#"{"annotations":{
            "io.kubernetes.pod.name":"x","io.kubernetes.pod.namespace":"y"}}"#;
        let userdata = "/run/containers/storage/overlay-containers/c0ffee/userdata";
        let pod = completed(userdata, config, owner(Engine::Crio, true)).pod.expect("a pod");
        assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("x"), Some("y")));
    }

    #[test]
    fn an_engine_that_the_cgroup_does_not_name() {
        let task = "/run/containerd/io.containerd.runtime.v2.task/moby/c0ffee";
        assert_eq!(completed(task, "{}", owner(Engine::Unknown, false)).engine, Engine::Docker);
    }

    #[test]
    fn odd_files_change_nothing() {
        let task = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/c0ffee";
        for config in ["", "[]", r#"{"annotations":7}"#] {
            let found = completed(task, config, owner(Engine::Containerd, true));
            assert_eq!(found.pod.and_then(|pod| pod.name), None, "{config}");
        }
        let mut claim = owner(Engine::Unknown, false);
        if let Owner::Container(container) = &mut claim {
            container.uid = Some(7);
        }
        let claimed = completed(task, "{}", claim);
        assert_eq!(claimed.engine, Engine::Unknown, "a user's claim on a container of root's");
        let mut unknown = owner(Engine::Unknown, false);
        complete(&Root::at("/nonexistent"), &mut unknown);
        assert_eq!(unknown, owner(Engine::Unknown, false));
    }
}
