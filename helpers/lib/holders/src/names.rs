// SPDX-License-Identifier: MIT
//! Units that are known by their names.

/// Whether a unit is one that no run stops, neither itself nor along with another: what holds the
/// machine together, and the engines, whose containers are asked for one by one.
pub fn is_core(unit: &str) -> bool {
    const NAMES: [&str; 16] = [
        "init.scope",
        "dbus.service",
        "dbus.socket",
        "dbus-broker.service",
        "systemd-logind.service",
        "systemd-journald.service",
        "systemd-machined.service",
        "docker.service",
        "docker.socket",
        "containerd.service",
        "podman.service",
        "podman.socket",
        "crio.service",
        "kubelet.service",
        "k3s.service",
        "k3s-agent.service",
    ];
    NAMES.contains(&unit)
        || unit.starts_with("nvidia-reload")
        || unit.starts_with("rke2-")
        || (unit.starts_with("user@") && unit.ends_with(".service"))
        || unit.ends_with(".slice")
        || unit.ends_with(".target")
}

/// Whether a service of the system only hosts what others start in it, and would take them all along.
pub fn is_host(unit: &str) -> bool {
    const NAMES: [&str; 23] = [
        "anacron.service",
        "atd.service",
        "autologin@.service",
        "busybox-crond.service",
        "console-getty.service",
        "container-getty@.service",
        "cron.service",
        "crond.service",
        "cronie.service",
        "debug-shell.service",
        "dropbear.service",
        "dropbear@.service",
        "emergency.service",
        "fcron.service",
        "getty@.service",
        "rc-local.service",
        "rescue.service",
        "serial-getty@.service",
        "ssh.service",
        "ssh@.service",
        "sshd.service",
        "sshd@.service",
        "systemd-udevd.service",
    ];
    let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
    NAMES.contains(&unit) || template.is_some_and(|name| NAMES.contains(&name.as_str()))
}
