//! What becomes of a container that has a GPU: decided here alone. The plan shows it, and drain-containers does
//! it.

use step::{AutoRemove, Config, Pods, Reason};

use crate::{Container, Kind, Owner};

/// What becomes of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Its engine stops it and starts it again.
    Restart,
    /// Its engine stops it and deletes it then (`--rm`); it is created again.
    Recreate,
    /// Its engine stops it and deletes it then, and that is all.
    LetGo,
    /// It is of a pod: its kubelet, in this unit, is stopped, and starts it again.
    Pod(String),
    /// It is stopped and started with its unit.
    Unit(String),
    /// It is a user's, who cannot make it a refusal: dealt with as the processes that it is.
    Plain,
    /// No run begins while it runs.
    Refuse(Reason),
}

/// What becomes of `container`.
pub fn decide(container: &Container, config: &Config) -> Decision {
    let refuse = |why: &str, remedy: &str| {
        Decision::Refuse(Reason::new(format!("{container} {} and {why}", container.reasons()), remedy))
    };
    let all_pods = config.containers.pods == Pods::All;
    if let Some((why, remedy)) = container.owner.forbids(all_pods, &config.units.protect) {
        return refuse(&why, remedy);
    }
    match &container.owner {
        Owner::Unit { unit } => return Decision::Unit(unit.clone()),
        Owner::Kubernetes { kubelet: Some(kubelet), .. } => return Decision::Pod(kubelet.clone()),
        _ => {}
    }
    if container.is_plain() {
        return Decision::Plain;
    }
    match config.containers.auto_remove {
        _ if !container.auto_remove => Decision::Restart,
        AutoRemove::LetGo => Decision::LetGo,
        AutoRemove::Recreate if container.engine == Kind::Docker => Decision::Recreate,
        AutoRemove::Refuse | AutoRemove::Recreate => refuse(
            "was started with --rm: stopped, it would be deleted",
            "stop it yourself, or say what to do with containers.auto-remove",
        ),
    }
}
