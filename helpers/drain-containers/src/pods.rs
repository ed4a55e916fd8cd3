// SPDX-License-Identifier: MIT
//! The containers of pods. It is the kubelet that starts them, and again as soon as one ends: so it is
//! stopped first, then they are; and to restore them is to start it, and to see that each runs again.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use cri::ContainerState;
use engines::{Container, Owner, pods, side_by_side, wait_for};
use holders::Scope;
use ledger::{Act, Intent, Object, Pod, Step, Unit};
use step::{Config, Context, Order, Reason, Undo, order_unit};

use crate::{policy, survey};

/// The role of a kubelet in the ledger.
const KUBELET: &str = "kubelet";

/// How often it is looked whether they do.
const PAUSE: Duration = Duration::from_millis(500);

/// Stops the containers of these pods; returns how many.
///
/// # Errors
/// A kubelet or a container did not stop, or a pod has come up meanwhile that must not be stopped.
pub(crate) fn take(context: &Context, config: &Config, scope: &Scope, found: &[Container]) -> Result<usize> {
    let Some(kubelet) = found.iter().find_map(kubelet) else { return Ok(0) };
    let unit = Unit { name: kubelet.to_owned(), user: None, role: KUBELET.to_owned() };
    context.status(format!("stopping {kubelet}"));
    context.ledger.act(Step::DrainContainers, Object::Unit(unit), || {
        Ok(order_unit(Order::StopAndWait, kubelet).with_context(|| format!("stop {kubelet}"))?)
    })?;
    context.info(format!("stopped {kubelet}: it would start the containers of pods again"));
    // Until then it may have started others, and it does not show in a survey any more.
    let parallel = config.containers.parallel;
    let mut now = survey(context, scope, parallel)?.containers;
    now.retain(|container| matches!(container.owner, Owner::Kubernetes { .. }));
    for container in &mut now {
        if let Owner::Kubernetes { kubelet: unseen, .. } = &mut container.owner {
            *unseen = Some(kubelet.to_owned());
        }
    }
    let policy::Sorted { pods: ours, refusals, .. } = policy::sort(now, config);
    if !refusals.is_empty() {
        return Err(came_up(&refusals));
    }
    let mut acts = Vec::new();
    for pod in &ours {
        acts.push(context.ledger.intent(Step::DrainContainers, Object::Container(object(pod, config)))?);
    }
    let stops = side_by_side(ours.iter().zip(&acts), parallel, async |(pod, act): (&Container, &Intent)| {
        stop(context, pod, *act, config).await.map_err(|error| format!("{pod}: {error:#}"))
    });
    let failed: Vec<String> = wait_for(stops)?.into_iter().filter_map(Result::err).collect();
    if !failed.is_empty() {
        bail!("{} of {} containers of pods did not stop: {}", failed.len(), ours.len(), failed.join("; "));
    }
    Ok(ours.len())
}

/// A failure, and no refusal: the kubelet and other containers are stopped by now, and have to come back.
fn came_up(reasons: &[Reason]) -> Error {
    let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
    anyhow!("started while the others were stopped, and must not be stopped: {}", reasons.join("; "))
}

async fn stop(context: &Context, pod: &Container, act: Intent<'_>, config: &Config) -> Result<()> {
    let client = pods::client(&context.root, &pod.socket)?;
    let grace = policy::grace(pod.stop_timeout, config.containers.stop_timeout_max);
    match client.stop(&pod.id, grace).await {
        Ok(()) | Err(cri::Error::Gone) => {}
        // An intent still: the undo sees whether it runs.
        Err(error) => return Err(error.into()),
    }
    act.done()?;
    context.info(format!("stopped {pod}: it {}", pod.reasons()));
    Ok(())
}

fn kubelet(pod: &Container) -> Option<&str> {
    match &pod.owner {
        Owner::Kubernetes { kubelet, .. } => kubelet.as_deref(),
        _ => None,
    }
}

fn object(pod: &Container, config: &Config) -> ledger::Container {
    let uid = match &pod.owner {
        Owner::Kubernetes { uid, .. } => uid.clone(),
        _ => String::new(),
    };
    let container = pod.name.rsplit('/').next().unwrap_or_default().to_owned();
    ledger::Container {
        pod: Some(Pod { uid, container, timeout: config.containers.pods_timeout }),
        ..pod.in_ledger(0)
    }
}

/// Starts the kubelets that were stopped; returns whether all did. Those of another boot are the boot's to start.
pub(crate) fn start_kubelets(undo: &Undo, acts: &mut Vec<Act>) -> bool {
    let context = undo.context;
    let mut all = true;
    for act in acts.extract_if(.., |act| matches!(act.object, Object::Unit(_))) {
        let Object::Unit(unit) = &act.object else { continue };
        let name = &unit.name;
        // While the machine boots, it may be ordered after the unit that this runs in.
        let (order, words) = match undo.is_of_this_boot() {
            true => (Order::Start, "started"),
            false => (Order::Queue, "queued the start of"),
        };
        context.status(format!("starting {name}"));
        match order_unit(order, name) {
            Ok(true) => {
                context.info(format!("{words} {name}"));
                undo.restored(act.id, name);
            }
            Ok(false) => {
                let why = "is no longer a unit: nothing starts the pods of this machine";
                context.warn(format!("{name} {why}"));
                undo.lost(act.id, name, why);
            }
            Err(error) => {
                all = false;
                undo.failed(act.id, name, error);
            }
        }
    }
    all
}

/// The pods' containers among what is to be restored.
pub(crate) fn of_pods(acts: &mut Vec<Act>) -> Vec<(u64, ledger::Container)> {
    let is_pods = |act: &mut Act| matches!(&act.object, Object::Container(taken) if taken.pod.is_some());
    let acts = acts.extract_if(.., is_pods);
    acts.filter_map(|act| match act.object {
        Object::Container(taken) => Some((act.id, taken)),
        _ => None,
    })
    .collect()
}

/// Waits until the kubelet has started these again. One that does not come is noted as lost.
pub(crate) fn await_back(undo: &Undo, mut taken: Vec<(u64, ledger::Container)>) {
    let context = undo.context;
    if !undo.is_of_this_boot() {
        for (act, container) in taken.drain(..) {
            let name = Object::Container(container);
            context.info(format!("{name} is the kubelet's to start in this boot"));
            undo.restored(act, name);
        }
    }
    let timeouts = taken.iter().filter_map(|(_, container)| Some(container.pod.as_ref()?.timeout));
    let patience = timeouts.max().unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(patience);
    let all = taken.len();
    let mut silent = String::new();
    while !taken.is_empty() && Instant::now() < deadline {
        context.status(format!("containers of pods that run again: {} of {all}", all - taken.len()));
        match wait_for(running(context, &taken)).map_err(anyhow::Error::from).and_then(|answer| Ok(answer?)) {
            Ok(running) => {
                silent.clear();
                for (act, container) in taken.extract_if(.., |(_, one)| is_among(&running, one)) {
                    let name = Object::Container(container);
                    context.info(format!("{name} runs again"));
                    undo.restored(act, name);
                }
            }
            Err(error) => silent = format!(" ({error})"),
        }
        if !taken.is_empty() {
            sleep(PAUSE);
        }
    }
    for (act, container) in taken {
        let reason = format!(
            "was not started again by the kubelet within {patience} s{silent}: `kubectl describe pod` shows why"
        );
        let name = Object::Container(container);
        context.warn(format!("{name} {reason}"));
        undo.lost(act, name, reason);
    }
}

fn is_among(running: &BTreeSet<(String, String)>, taken: &ledger::Container) -> bool {
    taken.pod.clone().is_some_and(|pod| running.contains(&(pod.uid, pod.container)))
}

/// Which containers of pods run, by the pod's UID and their names, in the runtimes that ran these.
async fn running(
    context: &Context,
    taken: &[(u64, ledger::Container)],
) -> Result<BTreeSet<(String, String)>, engines::Error> {
    let sockets: BTreeSet<&str> = taken.iter().map(|(_, container)| container.socket.as_str()).collect();
    let mut running = BTreeSet::new();
    for socket in sockets {
        let containers = pods::client(&context.root, socket)?.containers().await.map_err(pods::typed)?;
        let running_ones =
            containers.iter().filter(|container| container.state == i32::from(ContainerState::Running));
        running.extend(running_ones.map(|container| {
            let label = |name| container.labels.get(name).cloned().unwrap_or_default();
            (label(cri::POD_UID), label(cri::CONTAINER_NAME))
        }));
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_up_meanwhile_is_a_failure_and_no_refusal() {
        let error = came_up(&[Reason::new("pod a has a GPU", "drain the node")]);
        assert!(error.downcast_ref::<step::Stop>().is_none(), "a refusal says that nothing was touched");
        assert!(error.to_string().contains("pod a has a GPU: drain the node"), "{error}");
    }
}
