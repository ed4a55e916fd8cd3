// SPDX-License-Identifier: MIT
//! A start that NVIDIA's hook fails after the driver was changed.
//!
//! Hooks of toolkits before 1.18 mount over files of the driver's in `/proc`, and fail for a `dockerd` that ran before
//! the driver was loaded, until it is restarted (NVIDIA/nvidia-container-toolkit#169). Which of their errors says so
//! is in no type: any refused start of theirs is tried once more after a restart of the daemon. Only where that takes
//! down nothing else: with `live-restore` the other containers run on.

use engines::{Client, Error, Kind};
use ledger::{Object, Step};
use step::{Order, Undo, order_unit};

use crate::taken::Taken;

/// Docker's daemon, and the sockets that are its own.
const DAEMON: &str = "docker.service";
const SOCKETS: [&str; 2] = ["/run/docker.sock", "/var/run/docker.sock"];

/// Restarts the engine where that may make it start one of those that it did not start. Whether it did.
pub(crate) async fn renew(
    undo: &Undo<'_>,
    client: &Client,
    socket: &str,
    failed: &[(&Taken, Error)],
) -> bool {
    let is_of_daemon = client.kind() == Kind::Docker && SOCKETS.contains(&socket);
    if failed.is_empty() || !is_of_daemon || !was_changed(undo) {
        return false;
    }
    for (one, error) in failed.iter().filter(|(_, error)| matches!(error, Error::Refused { .. })) {
        let container = &one.container;
        // One that was recreated has another id and the same name.
        let id = if container.definition.is_some() { &container.name } else { &container.id };
        if matches!(client.starts_by_nvidias_hook(id).await, Ok(true)) {
            return restart(undo, client, &Object::Container(container.clone()), error).await;
        }
    }
    false
}

/// Restarts the engine for `name`, which it does not start.
async fn restart(undo: &Undo<'_>, client: &Client, name: &Object, why: &Error) -> bool {
    let context = undo.context;
    match client.keeps_containers().await {
        Ok(true) => {}
        Ok(false) => {
            context.warn(format!(
                "{name} may start once {DAEMON} is restarted; it is not, since without live-restore that stops every container"
            ));
            return false;
        }
        Err(error) => {
            context.warn(format!("{DAEMON} is not restarted for {name}: {error}"));
            return false;
        }
    }
    context.warn(format!("{name} does not start ({why}): {DAEMON} is restarted, and it is tried once more"));
    let restarted = engines::in_background(|| order_unit(Order::Restart, DAEMON)).await;
    let problem = match restarted {
        Ok(Ok(true)) => return true,
        Ok(Ok(false)) => "there is no such unit".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    context.warn(format!("{DAEMON} is not restarted: {problem}"));
    false
}

/// Whether this run, in this boot, has unloaded the driver.
fn was_changed(undo: &Undo<'_>) -> bool {
    let unloaded =
        |act: &ledger::Act| act.step == Step::RmmodChain && matches!(act.object, Object::Module(_));
    undo.is_of_this_boot() && undo.run.acts.iter().any(unloaded)
}
