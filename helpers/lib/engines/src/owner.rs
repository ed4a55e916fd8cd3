// SPDX-License-Identifier: MIT
//! Who looks after a container.

use std::fs;

use step::Root;

use crate::clients::{Clients, unit_of};
use crate::{Engine, Inspect, Owner};

/// The owner, by the labels that each leaves on its containers, then by the control group, then by
/// the client that stays with the container.
///
/// Labels of a user's own engine are that user's words: they may name a unit, which that user's manager is
/// asked for, and nothing else becomes the owner by them.
pub fn of(root: &Root, engine: &Engine, container: &Inspect, clients: &Clients) -> Owner {
    if let Some(uid) = engine.user {
        return labelled_unit(container)
            .or_else(|| clients.unit(engine.kind, Some(uid), container).map(unit))
            .or_else(|| compose(container))
            .unwrap_or(Owner::Engine);
    }
    by_label(container)
        .or_else(|| {
            let path = root.path(format!("/proc/{}/cgroup", container.pid()?));
            let text = fs::read(path).ok()?;
            unit_of(outside(&String::from_utf8_lossy(&text), container.id())).map(unit)
        })
        .or_else(|| clients.unit(engine.kind, None, container).map(unit))
        .or_else(|| compose(container))
        .unwrap_or(Owner::Engine)
}

/// The owners that would start the container, or another like it, as soon as it stops.
fn by_label(container: &Inspect) -> Option<Owner> {
    let label = |name| container.label(name).filter(|value| !value.is_empty()).map(str::to_owned);
    if let Some(task) = label("com.docker.swarm.task.id") {
        // It goes into a command that people paste: as Swarm makes its ids, or not at all.
        let is_id = |id: &String| id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        return Some(Owner::Swarm {
            service: label("com.docker.swarm.service.name").unwrap_or(task),
            node: label("com.docker.swarm.node.id").filter(is_id),
        });
    }
    if let Some(pod) = label("io.kubernetes.pod.name") {
        let namespace = label("io.kubernetes.pod.namespace").unwrap_or_else(|| "default".to_owned());
        return Some(docker_pod(format!("{namespace}/{pod}")));
    }
    if container.name().starts_with("k8s_") {
        return Some(docker_pod(container.name().to_owned()));
    }
    if let Some(allocation) = label("com.hashicorp.nomad.alloc_id") {
        return Some(Owner::Nomad { allocation });
    }
    labelled_unit(container)
}

/// Quadlet and `podman generate systemd` set it.
fn labelled_unit(container: &Inspect) -> Option<Owner> {
    container.label("PODMAN_SYSTEMD_UNIT").filter(|unit| as_user::is_unit_name(unit)).map(unit)
}

fn unit(unit: impl Into<String>) -> Owner {
    Owner::Unit { unit: unit.into() }
}

/// A pod whose kubelet has Docker for its runtime, as it could be until Kubernetes 1.23: not touched.
fn docker_pod(pod: String) -> Owner {
    Owner::Kubernetes { pod, uid: String::new(), daemon_set: false, kubelet: None }
}

fn compose(container: &Inspect) -> Option<Owner> {
    Some(Owner::Compose {
        project: container.label("com.docker.compose.project")?.to_owned(),
        service: container.label("com.docker.compose.service").unwrap_or_default().to_owned(),
    })
}

/// `cgroup` down to the group that carries the container's id: below that the container makes groups of any name.
fn outside<'a>(cgroup: &'a str, id: &str) -> &'a str {
    let end = cgroup.find(id).filter(|_| !id.is_empty());
    end.map_or(cgroup, |end| cgroup[..end].trim_end_matches(|c| c != '/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Config;

    fn labelled(name: &str, labels: &[(&str, &str)]) -> Inspect {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Inspect {
            name: Some(name.to_owned()),
            config: Some(Config { labels: Some(labels), ..Config::default() }),
            ..Inspect::default()
        }
    }

    fn owner(name: &str, labels: &[(&str, &str)]) -> String {
        of_engine(None, name, labels)
    }

    fn of_engine(user: Option<u32>, name: &str, labels: &[(&str, &str)]) -> String {
        let presence = crate::Presence::Ready;
        let engine = Engine { kind: crate::Kind::Docker, user, socket: String::new(), presence };
        of(&Root::at("/nonexistent"), &engine, &labelled(name, labels), &Clients::default()).to_string()
    }

    #[test]
    fn a_users_labels_make_no_refusal() {
        for label in ["com.docker.swarm.task.id", "io.kubernetes.pod.name", "com.hashicorp.nomad.alloc_id"] {
            assert_eq!(of_engine(Some(7), "k8s_x", &[(label, "x")]), "its engine only", "{label}");
        }
        let unit = [("PODMAN_SYSTEMD_UNIT", "job.service")];
        assert_eq!(of_engine(Some(7), "job", &unit), "systemd unit job.service");
    }

    #[test]
    fn labels_tell_the_owner() {
        assert_eq!(owner("/job", &[("maintainer", "x")]), "its engine only");
        assert_eq!(owner("/job", &[("com.docker.swarm.task.id", "t1")]), "Swarm service t1");
        let pod = [("io.kubernetes.pod.name", "train-0"), ("io.kubernetes.pod.namespace", "ml")];
        assert_eq!(owner("/k8s_x", &pod), "Kubernetes pod ml/train-0");
        assert_eq!(owner("/k8s_x_y", &[]), "Kubernetes pod k8s_x_y");
        assert_eq!(owner("/job", &[("com.hashicorp.nomad.alloc_id", "a")]), "Nomad allocation a");
        assert_eq!(owner("job", &[("PODMAN_SYSTEMD_UNIT", "job.service")]), "systemd unit job.service");
        let compose = [("com.docker.compose.project", "p"), ("com.docker.compose.service", "s")];
        assert_eq!(owner("/p-s-1", &compose), "service s of compose project p");
    }

    #[test]
    fn a_task_of_swarm_names_its_node_where_that_is_an_id() {
        for (label, node) in [("k1abc", Some("k1abc")), ("", None), ("x`reboot`", None), ("a b", None)] {
            let labels = [("com.docker.swarm.task.id", "t1"), ("com.docker.swarm.node.id", label)];
            let owner = by_label(&labelled("/train.1.t1", &labels));
            assert_eq!(
                owner,
                Some(Owner::Swarm { service: "t1".into(), node: node.map(str::to_owned) }),
                "{label}"
            );
        }
    }

    #[test]
    fn a_users_labels_name_the_users_own_units_only() {
        let owner = |name: &str, labels: &[(&str, &str)]| of_engine(Some(7), name, labels);
        assert_eq!(owner("job", &[("PODMAN_SYSTEMD_UNIT", "job.service")]), "systemd unit job.service");
        for label in ["../x.service", "x.slice", "a\nb.service", ""] {
            assert_eq!(owner("job", &[("PODMAN_SYSTEMD_UNIT", label)]), "its engine only");
        }
        assert_eq!(owner("job", &[("com.hashicorp.nomad.alloc_id", "a")]), "its engine only");
        assert_eq!(owner("k8s_x_y", &[]), "its engine only");
    }

    #[test]
    fn the_innermost_unit_of_the_control_group_counts() {
        for (cgroup, unit) in [
            ("0::/system.slice/docker-0a1b.scope\n", None),
            ("0::/machine.slice/libpod-0a1b.scope/container\n", None),
            ("0::/system.slice/train.service/libpod-payload-0a1b\n", Some("train.service")),
            ("0::/system.slice/docker.service/0a1b\n", None),
            ("0::/docker/0a1b\n", None),
            ("0::/system.slice/cron.service\n", None),
            ("0::/system.slice/ssh.service\n", None),
            ("0::/system.slice/system-sshd.slice/sshd@1-10.0.0.1:22.service\n", None),
            ("11:pids:/docker/0a\n1:name=systemd:/system.slice/job.service\n", Some("job.service")),
            ("", None),
        ] {
            assert_eq!(unit_of(cgroup).as_deref(), unit, "{cgroup}");
        }
    }
}
