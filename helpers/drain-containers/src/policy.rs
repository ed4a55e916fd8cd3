//! Which of the containers are stopped here, and which must not be.

use engines::{Container, Kind, Owner};
use step::{AutoRemove, Reason};

/// What becomes of the containers that have a GPU.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sorted {
    /// Stopped by their engine, and started again.
    pub(crate) ours: Vec<Container>,
    /// Left to the step that stops units, with the unit.
    pub(crate) of_units: Vec<(Container, String)>,
    /// Why the run cannot go on.
    pub(crate) refusals: Vec<Reason>,
}

pub(crate) fn sort(containers: Vec<Container>, auto_remove: AutoRemove) -> Sorted {
    let mut sorted = Sorted::default();
    for container in containers {
        match &container.owner {
            Owner::Unit { unit } => {
                let unit = unit.clone();
                sorted.of_units.push((container, unit));
                continue;
            }
            owner @ (Owner::Swarm { .. } | Owner::Kubernetes { .. } | Owner::Nomad { .. }) => {
                sorted.refusals.push(Reason::new(
                    format!(
                        "{container} {} and belongs to {owner}, which would start another",
                        container.reasons()
                    ),
                    "drain this machine there first, so that nothing of it runs here",
                ));
                continue;
            }
            Owner::Engine | Owner::Compose { .. } => {}
        }
        if container.auto_remove && !may_be_deleted(&container, auto_remove) {
            sorted.refusals.push(Reason::new(
                format!(
                    "{container} {} and was started with --rm: stopped, it would be deleted",
                    container.reasons()
                ),
                "stop it yourself, or say what to do with containers.auto-remove",
            ));
            continue;
        }
        sorted.ours.push(container);
    }
    sorted
}

/// Whether a container may be stopped that its engine deletes then.
fn may_be_deleted(container: &Container, auto_remove: AutoRemove) -> bool {
    match auto_remove {
        AutoRemove::Refuse => false,
        AutoRemove::Recreate => container.engine == Kind::Docker,
        AutoRemove::LetGo => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engines::Why;

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

    fn mixed() -> Vec<Container> {
        vec![
            container("plain", Owner::Engine, false),
            container("web", Owner::Compose { project: "p".into(), service: "web".into() }, false),
            container("brief", Owner::Engine, true),
            container("task", Owner::Swarm { service: "train".into() }, false),
            container("pod", Owner::Kubernetes { pod: "ml/train-0".into() }, true),
            container("quadlet", Owner::Unit { unit: "job.service".into() }, true),
        ]
    }

    fn names(containers: &[Container]) -> Vec<&str> {
        containers.iter().map(|container| container.name.as_str()).collect()
    }

    #[test]
    fn each_owner_has_its_way() {
        let sorted = sort(mixed(), AutoRemove::Refuse);
        assert_eq!(names(&sorted.ours), ["plain", "web"]);
        assert_eq!(sorted.of_units.len(), 1);
        assert_eq!(sorted.of_units[0].1, "job.service");
        let refusals: Vec<_> = sorted.refusals.iter().map(Reason::to_string).collect();
        assert_eq!(refusals.len(), 3);
        assert!(refusals[0].contains("docker container brief (id-of-brief) holds a GPU"), "{refusals:?}");
        assert!(refusals[0].contains("auto-remove"), "{refusals:?}");
        assert!(refusals[1].contains("Swarm service train"), "{refusals:?}");
        assert!(refusals[2].contains("Kubernetes pod ml/train-0"), "{refusals:?}");
    }

    #[test]
    fn what_is_deleted_on_stop_may_be_let_go() {
        let sorted = sort(mixed(), AutoRemove::LetGo);
        assert_eq!(names(&sorted.ours), ["plain", "web", "brief"]);
        assert_eq!(sorted.refusals.len(), 2);
    }

    #[test]
    fn only_docker_makes_containers_anew() {
        let docker = container("brief", Owner::Engine, true);
        let podman = Container { engine: Kind::Podman, ..docker.clone() };
        let sorted = sort(vec![docker, podman], AutoRemove::Recreate);
        assert_eq!((sorted.ours.len(), sorted.refusals.len()), (1, 1));
    }
}
