//! Which containers count as having a GPU, and why.
//!
//! An idle container that was given a GPU is as broken after a change of the driver as one that
//! works on it, so what it was given counts as much as what it holds. Only fields with a meaning
//! are looked at: a container that is merely called "nvidia-exporter" is left alone.

use crate::inspect::{DeviceRequest, HostConfig};
use crate::numbers::{Found, Host, Number};
use crate::{Inspect, Why};

/// What is known of a container beside its engine's answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// The nodes in its OCI bundle.
    pub bundle: &'a [(String, Number)],
    /// The runtime that its engine takes when none is asked for.
    pub default_runtime: Option<&'a str>,
    /// Whether a process of it was seen to hold a GPU.
    pub holds: bool,
}

/// Why `container` counts; empty when it does not.
pub fn why(container: &Inspect, host: &dyn Host, beside: Beside<'_>) -> Vec<Why> {
    let mut why = Vec::new();
    if beside.holds {
        why.push(Why::Holds);
    }
    let given = container.host_config.clone().unwrap_or_default();
    // A privileged container may open every device of the host and mostly wants none: only what
    // it holds counts. What was asked for by name counts for it as well.
    if !given.privileged.unwrap_or_default() {
        devices(&given, beside.bundle, host, &mut why);
        by_rule(container, &given, host, &mut why);
    }
    for request in given.device_requests.iter().flatten() {
        requested(request, &mut why);
    }
    environment(container, &given, beside.default_runtime, &mut why);
    why
}

fn devices(given: &HostConfig, bundle: &[(String, Number)], host: &dyn Host, why: &mut Vec<Why>) {
    for path in given.devices.iter().flatten().filter_map(|device| device.path_on_host.as_deref()) {
        if is_cdi(path) {
            why.push(Why::Cdi { name: path.to_owned() });
            continue;
        }
        match host.at(path) {
            Found::Devices(found) => nodes(&found, host, why),
            // What number it had is in the bundle; without one there is only the name left.
            Found::Missing if bundle.is_empty() && is_nvidia_path(path) => {
                why.push(Why::Device { path: path.to_owned(), number: None, class: String::new() });
            }
            Found::Missing => {}
        }
    }
    nodes(bundle, host, why);
}

/// Adds the first of `found` that is the driver's, if there is not one already: the reason is for
/// a reader, who needs no list of all nodes.
fn nodes(found: &[(String, Number)], host: &dyn Host, why: &mut Vec<Why>) {
    if why.iter().any(|why| matches!(why, Why::Device { number: Some(_), .. })) {
        return;
    }
    let ours = found.iter().find_map(|(path, number)| {
        let class = host.class(*number)?;
        Some(Why::Device { path: path.clone(), number: Some(format!("{}:{}", number.0, number.1)), class })
    });
    why.extend(ours);
}

/// A rule that allows the driver's numbers gives a GPU only together with a node to open, which
/// then comes by a mount.
fn by_rule(container: &Inspect, given: &HostConfig, host: &dyn Host, why: &mut Vec<Why>) {
    let rules: Vec<&str> = given.device_cgroup_rules.iter().flatten().map(String::as_str).collect();
    if rules.is_empty() {
        return;
    }
    for source in container.mounts.iter().flatten().filter_map(|mount| mount.source.as_deref()) {
        if let Found::Devices(found) = host.at(source) {
            let allowed: Vec<_> = found
                .into_iter()
                .filter(|(_, number)| rules.iter().any(|rule| allows(rule, *number)))
                .collect();
            nodes(&allowed, host, why);
        }
    }
}

/// Whether a device rule (`c 195:* rwm`, `a *:* rwm`) allows a character device.
fn allows(rule: &str, (major, minor): Number) -> bool {
    let mut parts = rule.split_whitespace();
    let (Some(kind), Some(numbers)) = (parts.next(), parts.next()) else { return kind_only(rule) };
    let Some((rule_major, rule_minor)) = numbers.split_once(':') else { return false };
    let fits = |rule: &str, number: u32| rule == "*" || rule.parse() == Ok(number);
    matches!(kind, "c" | "a") && fits(rule_major, major) && fits(rule_minor, minor)
}

/// A lone `a` allows everything.
fn kind_only(rule: &str) -> bool {
    rule.trim() == "a"
}

fn requested(request: &DeviceRequest, why: &mut Vec<Why>) {
    let driver = request.driver.clone().unwrap_or_default();
    let ids: Vec<String> = request.device_ids.iter().flatten().cloned().collect();
    if driver == "cdi" || ids.iter().any(|id| is_cdi(id)) {
        why.extend(ids.into_iter().filter(|id| is_cdi(id)).map(|name| Why::Cdi { name }));
        return;
    }
    let capabilities: Vec<String> = request.capabilities.iter().flatten().flatten().cloned().collect();
    if driver == "nvidia" || (driver.is_empty() && capabilities.iter().any(|capability| capability == "gpu"))
    {
        why.push(Why::Request { driver, devices: if ids.is_empty() { capabilities } else { ids } });
    }
}

/// NVIDIA's runtime and hook go by `NVIDIA_VISIBLE_DEVICES` in the effective environment.
fn environment(container: &Inspect, given: &HostConfig, default_runtime: Option<&str>, why: &mut Vec<Why>) {
    let visible = variable(container, "NVIDIA_VISIBLE_DEVICES");
    match visible {
        // Said so: no GPU, whatever the runtime.
        Some("" | "void" | "none") => return,
        Some(value) => why.push(Why::Environment { value: value.to_owned() }),
        None => {}
    }
    let Some(runtime) = given.runtime.as_deref().filter(|name| is_nvidia_runtime(name)) else { return };
    // Where NVIDIA's runtime is everybody's, running under it says nothing. It then gives GPUs to
    // who asks in the environment, and to images of CUDA from before that variable.
    let old_cuda =
        variable(container, "CUDA_VERSION").is_some() && variable(container, "NVIDIA_REQUIRE_CUDA").is_none();
    if default_runtime != Some(runtime) || visible.is_some() || old_cuda {
        why.push(Why::Runtime { name: runtime.to_owned() });
    }
}

/// The last setting of a variable: the one that the process sees.
fn variable<'a>(container: &'a Inspect, name: &str) -> Option<&'a str> {
    let settings = container.config.as_ref()?.env.as_ref()?;
    settings.iter().rev().find_map(|setting| {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        (key == name).then_some(value)
    })
}

/// The names under which the container toolkit registers its runtime.
pub fn is_nvidia_runtime(name: &str) -> bool {
    matches!(name, "nvidia" | "nvidia-cdi" | "nvidia-legacy" | "nvidia-experimental")
}

/// A qualified CDI name of a vendor that is NVIDIA: `nvidia.com/gpu=0`,
/// `management.nvidia.com/gpu=all`.
fn is_cdi(name: &str) -> bool {
    let Some((vendor, class_and_device)) = name.split_once('/') else { return false };
    (vendor == "nvidia.com" || vendor.ends_with(".nvidia.com")) && class_and_device.contains('=')
}

/// Whether nothing but the driver puts a node there.
fn is_nvidia_path(path: &str) -> bool {
    path.strip_prefix("/dev/nvidia").is_some_and(|rest| {
        rest.is_empty()
            || rest.starts_with(|next: char| next.is_ascii_digit() || next == '-')
            || rest == "ctl"
    })
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
