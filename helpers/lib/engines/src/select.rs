// SPDX-License-Identifier: MIT
//! Which containers count as having a GPU, and why.
//!
//! An idle container that was given a GPU is as broken after a change of the driver as one that
//! works on it, so what it was given counts as much as what it holds. Only fields with a meaning
//! are looked at: a container that is merely called "nvidia-exporter" is not touched.

use crate::bundle::{Bundle, is_nvidias_program};
use crate::inspect::{DeviceRequest, HostConfig};
use crate::numbers::{Found, Host, Number};
use crate::{Inspect, Why};

/// What is known of a container beside its engine's answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// Its OCI bundle; none where that cannot be found.
    pub bundle: Option<&'a Bundle>,
    /// The runtime that it was started by.
    pub runtime: Runtime<'a>,
    /// Whether a process of it was seen to hold a GPU.
    pub holds: bool,
    /// The variables by which Swarm asks NVIDIA's runtime for its generic resources (`swarm-resource`).
    pub swarm: &'a [String],
}

/// The runtime of a container, as far as it matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Runtime<'a> {
    /// Not NVIDIA's: a variable that asks for GPUs is asked in vain.
    #[default]
    Other,
    /// NVIDIA's, which is the engine's usual one.
    Usual(&'a str),
    /// NVIDIA's, which was chosen for this container (`--runtime`, a RuntimeClass).
    Chosen(&'a str),
}

/// Why `container` counts; empty when it does not.
pub fn why(container: &Inspect, host: &dyn Host, evidence: Evidence<'_>) -> Vec<Why> {
    let mut why = Vec::new();
    if evidence.holds {
        why.push(Why::Holds);
    }
    let given = container.host_config.clone().unwrap_or_default();
    let nothing = Bundle::default();
    let bundle = evidence.bundle.unwrap_or(&nothing);
    // A privileged container may open every device of the host and mostly wants none: only what
    // it holds counts. What was asked for by name counts for it as well.
    if !given.privileged.unwrap_or(bundle.privileged) {
        devices(&given, evidence.bundle, host, &mut why);
        by_rule(container, &given, host, &mut why);
        by_bundles_rule(bundle, host, &mut why);
    }
    for request in given.device_requests.iter().flatten() {
        requested(request, &mut why);
    }
    wishes(container, bundle, evidence, &mut why);
    why
}

fn devices(given: &HostConfig, bundle: Option<&Bundle>, host: &dyn Host, why: &mut Vec<Why>) {
    for path in given.devices.iter().flatten().filter_map(|device| device.path_on_host.as_deref()) {
        if is_cdi(path) {
            why.push(Why::Cdi { name: path.to_owned() });
            continue;
        }
        match host.at(path) {
            Found::Devices(found) => nodes(&found, host, why),
            // What number it had is in the bundle; without one there is only the name left.
            Found::Missing
                if bundle.is_none_or(|bundle| bundle.devices.is_empty()) && is_nvidia_path(path) =>
            {
                why.push(Why::Device { path: path.to_owned(), number: None, class: String::new() });
            }
            Found::Missing => {}
        }
    }
    if let Some(bundle) = bundle {
        nodes(&bundle.devices, host, why);
    }
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

/// The same of a bundle, whose rules always let some devices be opened: the driver's only by their number.
fn by_bundles_rule(bundle: &Bundle, host: &dyn Host, why: &mut Vec<Why>) {
    if !bundle.rules.iter().any(|rule| rule.number().is_some_and(|number| host.class(number).is_some())) {
        return;
    }
    for (source, _) in &bundle.mounts {
        if let Found::Devices(mut found) = host.at(source) {
            found.retain(|(_, number)| bundle.rules.iter().any(|rule| rule.allows(*number)));
            nodes(&found, host, why);
        }
    }
}

/// NVIDIA's runtime and its hook go by `NVIDIA_VISIBLE_DEVICES` in the effective environment, and by mounts
/// that say the same. Under another runtime these have no effect: every image of CUDA has the
/// variable.
fn wishes(container: &Inspect, bundle: &Bundle, evidence: Evidence<'_>, why: &mut Vec<Why>) {
    let runtime = evidence.runtime;
    let name = match runtime {
        Runtime::Other if !bundle.has_hook => return,
        Runtime::Other => None,
        Runtime::Usual(name) | Runtime::Chosen(name) => Some(name),
    };
    let requests =
        bundle.mounts.iter().filter_map(|(_, to)| REQUESTS.iter().find_map(|at| to.strip_prefix(at)));
    let mut requests: Vec<String> = requests.map(str::to_owned).collect();
    // A generic resource wins over the image's variable, as in the runtime.
    requests.extend(evidence.swarm.iter().filter_map(|name| {
        let value = variable(container, bundle, name).filter(|value| !value.is_empty())?;
        Some(format!("{name}={value}"))
    }));
    let visible = variable(container, bundle, "NVIDIA_VISIBLE_DEVICES");
    let asks = visible.is_some() || !requests.is_empty();
    match visible {
        _ if !requests.is_empty() => {
            why.push(Why::Request { driver: "nvidia".to_owned(), devices: requests });
        }
        // Said so: no GPU, whatever the runtime.
        Some("" | "void" | "none") => return,
        Some(value) => why.push(Why::Environment { value: value.to_owned() }),
        None => {}
    }
    let Some(name) = name else { return };
    // Where NVIDIA's runtime is everybody's, running under it says nothing. It then gives GPUs to
    // what asks in the environment, and to images of CUDA from before that variable.
    let old_cuda = variable(container, bundle, "CUDA_VERSION").is_some()
        && variable(container, bundle, "NVIDIA_REQUIRE_CUDA").is_none();
    if matches!(runtime, Runtime::Chosen(_)) || asks || old_cuda {
        why.push(Why::Runtime { name: name.to_owned() });
    }
}

/// Where mounts are that ask NVIDIA's runtime for the device whose name is their last part.
const REQUESTS: [&str; 2] = ["/var/run/nvidia-container-devices/", "/run/nvidia-container-devices/"];

/// The last setting of a variable: the one that the process sees.
fn variable<'a>(container: &'a Inspect, bundle: &'a Bundle, name: &str) -> Option<&'a str> {
    let asked = container.config.as_ref().and_then(|config| config.env.as_deref()).unwrap_or_default();
    // What the engine says comes last: it is what the runtime was asked with.
    bundle.environment.iter().chain(asked).rev().find_map(|setting| {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        (key == name).then_some(value)
    })
}

/// The names under which the container toolkit registers its runtime.
pub fn is_nvidia_runtime(name: &str) -> bool {
    matches!(
        name,
        "nvidia" | "nvidia-cdi" | "nvidia-legacy" | "nvidia-experimental" | "nvidia-container-runtime"
    ) || is_nvidias_program(name)
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
