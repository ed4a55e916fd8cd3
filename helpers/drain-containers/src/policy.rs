// SPDX-License-Identifier: MIT
//! Which of the containers are stopped here, and which must not be.

use std::time::Duration;

use engines::{Container, Decision, decide};
use step::{Config, Reason};

/// What an engine takes for a container that names no stop timeout of its own: Docker's and
/// Podman's default.
const STOP_TIMEOUT: i64 = 10;

/// What becomes of the containers that have a GPU.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sorted {
    /// Stopped by their engine, and started again.
    pub(crate) ours: Vec<Container>,
    /// Of pods: stopped once their kubelet is.
    pub(crate) pods: Vec<Container>,
    /// Left to the step that stops units, with the unit.
    pub(crate) of_units: Vec<(Container, String)>,
    /// Of users, who cannot make them a refusal: left to the step that ends plain processes.
    pub(crate) plain: Vec<Container>,
    /// Why the run cannot go on.
    pub(crate) refusals: Vec<Reason>,
}

pub(crate) fn sort(containers: Vec<Container>, config: &Config) -> Sorted {
    let mut sorted = Sorted::default();
    for container in containers {
        match decide(&container, config) {
            Decision::Restart | Decision::Recreate | Decision::LetGo => sorted.ours.push(container),
            Decision::Pod(_) => sorted.pods.push(container),
            Decision::Unit(unit) => sorted.of_units.push((container, unit)),
            Decision::Plain => sorted.plain.push(container),
            Decision::Refuse(reason) => sorted.refusals.push(reason),
        }
    }
    sorted
}

/// The time between the stop signal and SIGKILL: the container's own, bounded.
pub(crate) fn grace(own: Option<i64>, longest: u64) -> Duration {
    // Negative is for ever.
    let own = u64::try_from(own.unwrap_or(STOP_TIMEOUT)).unwrap_or(longest);
    Duration::from_secs(own.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engines::{Kind, Owner, Why};

    fn container(name: &str, owner: Owner, auto_remove: bool) -> Container {
        Container {
            engine: Kind::Docker,
            user: None,
            socket: "/run/docker.sock".into(),
            id: format!("id-of-{name}"),
            name: name.into(),
            paused: false,
            auto_remove,
            has_health_check: false,
            restart: "no".into(),
            stop_timeout: None,
            owner,
            aliases: Vec::new(),
            needs: Vec::new(),
            pid: 1,
            why: vec![Why::Holds],
        }
    }

    fn pod(name: &str, daemon_set: bool, kubelet: Option<&str>) -> Container {
        let pod = format!("ml/{name}");
        let kubelet = kubelet.map(str::to_owned);
        container(name, Owner::Kubernetes { pod, uid: "u".into(), daemon_set, kubelet }, false)
    }

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(directory.path().join("etc/nvidia-reload")).expect("creates");
        std::fs::write(directory.path().join("etc/nvidia-reload/config.toml"), text).expect("writes");
        Config::load(&step::Root::at(directory.path())).expect("loads")
    }

    fn mixed() -> Vec<Container> {
        vec![
            container("plain", Owner::Engine, false),
            container("web", Owner::Compose { project: "p".into(), service: "web".into() }, false),
            container("brief", Owner::Engine, true),
            container("task", Owner::Swarm { service: "train".into(), node: Some("k1abc".into()) }, false),
            pod("train-0", false, None),
            pod("job-0", false, Some("kubelet.service")),
            pod("plugin-0", true, Some("kubelet.service")),
            container("quadlet", Owner::Unit { unit: "job.service".into() }, true),
        ]
    }

    fn names(containers: &[Container]) -> Vec<&str> {
        containers.iter().map(|container| container.name.as_str()).collect()
    }

    #[test]
    fn each_owner_has_its_way() {
        let sorted = sort(mixed(), &config(""));
        assert_eq!(names(&sorted.ours), ["plain", "web"]);
        assert_eq!(sorted.of_units.len(), 1);
        assert_eq!(sorted.of_units[0].1, "job.service");
        let refusals: Vec<_> = sorted.refusals.iter().map(Reason::to_string).collect();
        assert_eq!(refusals.len(), 4);
        assert!(refusals[0].contains("docker container brief (id-of-brief) holds a GPU"), "{refusals:?}");
        assert!(refusals[0].contains("auto-remove"), "{refusals:?}");
        assert!(refusals[1].contains("Swarm service train"), "{refusals:?}");
        assert!(refusals[1].contains("`docker node update --availability drain k1abc`"), "{refusals:?}");
        assert!(refusals[2].contains("Kubernetes pod ml/train-0, which would start another"), "{refusals:?}");
        assert!(refusals[3].contains("Kubernetes pod ml/job-0, which is of no DaemonSet"), "{refusals:?}");
        assert_eq!(names(&sorted.pods), ["plugin-0"]);
    }

    #[test]
    fn pods_go_as_the_configuration_says() {
        let sorted = sort(mixed(), &config("[containers]\npods = \"all\""));
        assert_eq!(names(&sorted.pods), ["job-0", "plugin-0"]);
        assert_eq!(sorted.refusals.len(), 3, "without a kubelet nothing would start it again");
        let sorted = sort(mixed(), &config("[units]\nprotect = [\"kubelet.service\"]"));
        assert_eq!(names(&sorted.pods), [""; 0]);
        assert!(sorted.refusals[4].to_string().contains("kubelet.service is protected"));
    }

    #[test]
    fn what_is_deleted_on_stop_may_be_let_go() {
        let sorted = sort(mixed(), &config("[containers]\nauto-remove = \"let-go\""));
        assert_eq!(names(&sorted.ours), ["plain", "web", "brief"]);
        assert_eq!(sorted.refusals.len(), 3);
    }

    #[test]
    fn only_docker_recreates_containers() {
        let docker = container("brief", Owner::Engine, true);
        let podman = Container { engine: Kind::Podman, ..docker.clone() };
        let sorted = sort(vec![docker, podman], &config("[containers]\nauto-remove = \"recreate\""));
        assert_eq!((sorted.ours.len(), sorted.refusals.len()), (1, 1));
    }

    #[test]
    fn a_users_container_is_never_a_refusal() {
        let of_user = |name: &str, owner: Owner, auto_remove| Container {
            engine: Kind::Podman,
            user: Some(1000),
            ..container(name, owner, auto_remove)
        };
        for auto_remove in ["refuse", "recreate", "let-go"] {
            let containers = vec![
                of_user("brief", Owner::Engine, true),
                of_user("compose", Owner::Compose { project: "p".into(), service: "web".into() }, true),
                of_user("long", Owner::Engine, false),
                of_user("quadlet", Owner::Unit { unit: "job.service".into() }, true),
            ];
            let text = format!("[containers]\nauto-remove = \"{auto_remove}\"");
            let sorted = sort(containers, &config(&text));
            assert!(sorted.refusals.is_empty(), "{auto_remove}: {:?}", sorted.refusals);
            assert_eq!(names(&sorted.plain), ["brief", "compose"], "{auto_remove}");
            assert_eq!(names(&sorted.ours), ["long"], "{auto_remove}");
            assert_eq!(sorted.of_units.len(), 1, "{auto_remove}");
        }
    }
}
