// SPDX-License-Identifier: MIT
//! Containers of containerd that no engine here answers for: those of nerdctl and ctr, of BuildKit, and what
//! was put beside the kubelet's own.
//!
//! containerd alone starts none again as it was: its networks and its name are its client's work. So one that
//! has a GPU is a refusal that names it.

use std::collections::BTreeSet;

use step::Root;

use crate::answer::holds;
use crate::inspect::{HostConfig, Inspect};
use crate::numbers::Machine;
use crate::running::{DOCKERS, PODS, Running};
use crate::select::{self, Evidence, Runtime};
use crate::{Container, Kind, Owner};

/// What containerd's CRI notes of the container that holds a pod together.
const CRI_TYPE: &str = "io.kubernetes.cri.container-type";

/// What nerdctl notes.
const NERDCTL_NAME: &str = "nerdctl/name";

/// Those that have a GPU, but for the `known`.
pub(crate) fn containers(
    root: &Root,
    running: &Running,
    machine: &Machine,
    holding: &[holders::Container],
    known: &BTreeSet<String>,
) -> Vec<Container> {
    let mut found = Vec::new();
    for (namespace, id, socket) in running.all_of_containerd() {
        // Where Docker does not answer, that is said of it.
        if namespace == DOCKERS || known.contains(&id) {
            continue;
        }
        let Some(bundle) = running.of_containerd(root, namespace, &id) else { continue };
        let is_alive = bundle.pid.is_some_and(|pid| root.path(format!("/proc/{pid}")).exists());
        let is_sandbox = bundle.annotations.get(CRI_TYPE).is_some_and(|kind| kind == "sandbox");
        if !is_alive || (namespace == PODS && is_sandbox) {
            continue;
        }
        let program = bundle.runtime.as_deref().filter(|program| select::is_nvidia_runtime(program));
        let evidence = Evidence {
            bundle: Some(&bundle),
            runtime: program.map_or(Runtime::Other, Runtime::Usual),
            holds: holds(root, holding, None, &id, bundle.pid),
            swarm: &[],
        };
        let host_config = HostConfig { privileged: Some(bundle.privileged), ..HostConfig::default() };
        let described = Inspect { host_config: Some(host_config), ..Inspect::default() };
        let why = select::why(&described, machine, evidence);
        if why.is_empty() {
            continue;
        }
        found.push(Container {
            engine: Kind::Containerd,
            user: None,
            socket: socket.to_owned(),
            name: bundle.annotations.get(NERDCTL_NAME).cloned().unwrap_or_else(|| id.clone()),
            paused: false,
            auto_remove: false,
            has_health_check: false,
            restart: String::new(),
            stop_timeout: None,
            owner: Owner::Namespace { namespace: namespace.to_owned() },
            aliases: vec![id.clone()],
            id,
            needs: Vec::new(),
            pid: bundle.pid.unwrap_or_default(),
            why,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::running::tests::{process, tree};

    #[test]
    fn an_idle_container_of_nerdctl_with_a_gpu_is_named() {
        let (_directory, root) = tree();
        fs::write(root.path("/proc/devices"), "Character devices:\n195 nvidia\n").expect("writes");
        let place = root.path("/run/containerd/io.containerd.runtime.v2.task/default");
        let bundle = |id: &str, text: &str| {
            fs::create_dir_all(place.join(id)).expect("creates");
            fs::write(place.join(id).join("config.json"), text).expect("writes");
            fs::write(place.join(id).join("init.pid"), "9").expect("writes");
        };
        let node = r#"{"path":"/dev/nvidia0","type":"c","major":195,"minor":0}"#;
        bundle(
            "gpu",
            &format!(r#"{{"linux":{{"devices":[{node}]}},"annotations":{{"nerdctl/name":"job"}}}}"#),
        );
        bundle("plain", r#"{"process":{"env":["NVIDIA_VISIBLE_DEVICES=all"]}}"#);
        process(
            &root,
            7,
            "containerd-shim",
            b"/bin/containerd-shim-runc-v2\0-namespace\0default\0-id\0gpu\0",
        );
        fs::write(root.path("/proc/7/task/1/children"), "9 ").expect("writes");
        std::os::unix::fs::symlink(place.join("gpu"), root.path("/proc/7/cwd")).expect("links");
        let look = |known: &[&str]| {
            let running = Running::look(&root).expect("looks");
            let machine = Machine::load(&root).expect("loads");
            let known = known.iter().map(|id| (*id).to_owned()).collect();
            containers(&root, &running, &machine, &[], &known)
        };
        assert_eq!(look(&[]).len(), 0, "its process has ended");
        process(&root, 9, "sleep", b"sleep\0");
        let found = look(&[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].name.as_str(), found[0].socket.as_str()),
            ("job", "/run/containerd/containerd.sock")
        );
        assert!(found[0].owner.forbids(true, &[]).is_some(), "nothing starts it again");
        assert_eq!(look(&["gpu"]).len(), 0, "an engine knows it");
    }
}
