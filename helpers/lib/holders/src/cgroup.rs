// SPDX-License-Identifier: MIT
//! The owner of a process, by the cgroup it runs in.
//!
//! `/proc/PID/cgroup` has one line a hierarchy, `ID:CONTROLLERS:PATH`: only `0::PATH` under the
//! unified layout, one for each controller under the old one, both under the hybrid one. Service
//! managers and engines name the directories, so the path tells who made them; how, is written
//! in systemd's CGROUP_DELEGATION, in the sources of runc, Podman, Kubernetes, LXC and Slurm.
//!
//! A directory's name is the word of the owner of the directory above it. Below
//! `user@N.service`, and below any other directory that is not root's, a name is a user's claim: it
//! can be of a container of that user's own engine, and of nothing else.

use crate::model::{Container, Engine, Owner, Pod};
use crate::text::escape;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The owner of the process that has this `/proc/PID/cgroup`, where only users' managers have
/// directories that are not root's.
///
/// Never fails: what cannot be understood is a plain process.
pub fn owner(text: &[u8]) -> Owner {
    owner_where(text, |_| true)
}

/// The same; `is_roots` tells whether a directory (`/a/b`) belongs to root.
pub(crate) fn owner_where(text: &[u8], is_roots: impl Fn(&str) -> bool) -> Owner {
    let paths = Paths::read(text);
    let mut claimed = None;
    // Engines that do not work through systemd make a group in each hierarchy but systemd's.
    for path in paths.all() {
        match contained(&parts(path), &is_roots) {
            Some(Owner::Container(container)) if container.uid.is_some() => {
                claimed.get_or_insert(Owner::Container(container));
            }
            Some(owner) => return owner,
            None => {}
        }
    }
    claimed.unwrap_or_else(|| paths.managed.map_or(Owner::Process, |path| unit_of(&parts(path))))
}

/// Whether a control group below `groups` belongs to root. One that is gone, or of a hierarchy that does not show
/// here, was not given to a user: that is only done in these.
pub(crate) fn is_roots(groups: &Path, group: &str) -> bool {
    ["", "unified", "systemd"].iter().all(|hierarchy| {
        let path = groups.join(hierarchy).join(group.trim_start_matches('/'));
        std::fs::metadata(path).map_or(true, |found| found.uid() == 0)
    })
}

/// The groups in this `/proc/PID/cgroup` that carry the id of a container, each as the path of the
/// directory that does.
pub fn groups_of(text: &[u8], id: &str) -> Vec<String> {
    let carries = |path: &str| {
        let parts = parts(path);
        let at = parts.iter().position(|part| part.contains(id))?;
        Some(joined(&parts[..=at]))
    };
    Paths::read(text).all().filter_map(carries).collect()
}

/// The paths of one process.
#[derive(Default)]
struct Paths<'a> {
    /// The hierarchy that systemd manages: it names the units.
    managed: Option<&'a str>,
    others: Vec<&'a str>,
}

impl<'a> Paths<'a> {
    fn read(text: &'a [u8]) -> Self {
        let mut paths = Self::default();
        let mut named = false;
        for line in text.split(|byte| *byte == b'\n') {
            // A path that is not UTF-8 was made by none of those that are known here.
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            match controllers {
                // Under the hybrid layout both are there and systemd's own is the full one.
                "name=systemd" => {
                    paths.others.extend(paths.managed.replace(path));
                    named = true;
                }
                "" if !named => paths.managed = Some(path),
                _ => paths.others.push(path),
            }
        }
        paths
    }

    fn all(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.managed.iter().chain(&self.others).copied()
    }
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

fn joined(parts: &[&str]) -> String {
    parts.iter().fold(String::new(), |path, part| path + "/" + part)
}

/// The user to whom systemd hands everything below the directory at `at`.
fn delegated_to(parts: &[&str], at: usize) -> Option<u32> {
    let uid = parts[at].strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()?;
    // PID 1 makes it there and nowhere else.
    let above = [String::from("user.slice"), format!("user-{uid}.slice")];
    (parts[..at] == above).then_some(uid)
}

/// The outermost container or job on the way to a process: the one that the host's engine knows.
fn contained(parts: &[&str], is_roots: impl Fn(&str) -> bool) -> Option<Owner> {
    let mut uid = None;
    let mut unit = None;
    let mut pod: Option<Pod> = None;
    for (at, part) in parts.iter().enumerate() {
        if let Some(id) = pod_of(part) {
            pod = Some(Pod { uid: id, name: None, namespace: None });
        }
        let claimed = uid.is_some();
        let known = match slurm_step(parts, at) {
            // No job of root's Slurm and no machine of root's runs there.
            _ if claimed => None,
            job => job,
        };
        let above = at.checked_sub(1).map(|before| parts[before]);
        let below = parts.get(at + 1).copied();
        let found = container(above, part, below)
            .filter(|(engine, _)| !claimed || !matches!(engine, Engine::Lxc | Engine::Machine));
        if known.is_some() || found.is_some() {
            // Asked late: most processes are in none.
            if !claimed && !(1..=at).all(|above| is_roots(&joined(&parts[..above]))) {
                return None;
            }
            let Some((engine, id)) = found.filter(|_| known.is_none()) else { return known };
            let unit = match engine {
                // Podman started by a service, in that service's own group.
                Engine::Podman if part.starts_with("libpod-payload-") => unit,
                Engine::Machine => unit_name(part).filter(|name| name.ends_with(".service")),
                _ => None,
            };
            let group = joined(&parts[..=at]);
            return Some(Owner::Container(Container { engine, id, uid, unit, group, pod }));
        }
        if let (None, Some(user)) = (uid, delegated_to(parts, at)) {
            (uid, unit) = (Some(user), None);
        } else if let Some(name) = unit_name(part) {
            unit = Some(name);
        }
    }
    None
}

/// The container that a directory stands for, by its name and its neighbours'.
fn container(above: Option<&str>, part: &str, below: Option<&str>) -> Option<(Engine, String)> {
    let named = |engine, id: &str| Some((engine, escape(id.as_bytes())));
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return named(Engine::Lxc, name);
    }
    if let ("lxc" | "lxc.payload", Some(name)) = (part, below) {
        return named(Engine::Lxc, name);
    }
    if let Some(name) = part.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope")) {
        return Some((Engine::Machine, unescape_unit(name)));
    }
    if let Some(name) = part.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return Some((Engine::Machine, unescape_unit(name)));
    }
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if is_id(name) {
        let engine = match above {
            Some("docker") => Engine::Docker,
            _ => Engine::Unknown,
        };
        return named(engine, name);
    }
    let (engine, id) = [
        ("docker-", Engine::Docker),
        ("libpod-payload-", Engine::Podman),
        ("libpod-", Engine::Podman),
        ("cri-containerd-", Engine::Containerd),
        ("nerdctl-", Engine::Containerd),
        ("crio-", Engine::Crio),
    ]
    .into_iter()
    .find_map(|(prefix, engine)| Some((engine, name.strip_prefix(prefix)?)))?;
    // Not so for libpod-conmon-ID and crio-conmon-ID: the monitor is outside of the container.
    is_id(id).then(|| (engine, id.to_owned()))
}

/// Engines' ids are 64 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The pod's uid in `kubepods-burstable-pod0a1b_2c3d.slice` or `pod0a1b-2c3d`.
fn pod_of(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => {
            let (above, uid) = slice.rsplit_once("-pod")?;
            above.contains("kubepods").then_some(uid)?
        }
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let plausible = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    plausible.then_some(uid)
}

/// The user in `user-1000.slice` or `user@1000.service`.
fn user_of(part: &str) -> Option<u32> {
    part.strip_prefix("user-")
        .and_then(|rest| rest.strip_suffix(".slice"))
        .or_else(|| part.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service")))
        .and_then(|uid| uid.parse().ok())
}

/// A Slurm job's step: `slurmstepd.scope/job_7/step_0/…`, `slurm/uid_1000/job_7/step_batch/…`.
fn slurm_step(parts: &[&str], at: usize) -> Option<Owner> {
    let job = parts[at].strip_prefix("job_")?;
    let step = parts.get(at + 1)?.strip_prefix("step_")?;
    parts[..at]
        .iter()
        .any(|part| part.contains("slurm"))
        .then(|| Owner::SlurmStep { job: escape(job.as_bytes()), step: escape(step.as_bytes()) })
}

/// The unit of systemd that a process outside of any container belongs to.
fn unit_of(parts: &[&str]) -> Owner {
    let (slices, rest) = below_slices(parts);
    let Some(unit) = rest.first().and_then(|part| unit_name(part)) else {
        return Owner::Process;
    };
    let slice = slices.last().map_or_else(|| "-.slice".to_owned(), |slice| escape(slice.as_bytes()));
    if let Some(uid) = unit
        .strip_prefix("user@")
        .and_then(|name| name.strip_suffix(".service"))
        .and_then(|uid| uid.parse().ok())
    {
        let (_, below) = below_slices(&rest[1..]);
        let named = below.first().and_then(|part| unit_name(part));
        // Every group there is the user's to enter, also the manager's own.
        return Owner::UserUnit { uid, unit: named.unwrap_or_else(|| "init.scope".to_owned()) };
    }
    let session = unit.strip_prefix("session-").and_then(|name| name.strip_suffix(".scope"));
    match session {
        Some(id) if slices.first() == Some(&"user.slice") => {
            Owner::Session { id: id.to_owned(), uid: slices.iter().rev().find_map(|slice| user_of(slice)) }
        }
        _ => Owner::SystemUnit { unit, slice },
    }
}

fn below_slices<'a, 'b>(parts: &'b [&'a str]) -> (&'b [&'a str], &'b [&'a str]) {
    parts.split_at(parts.iter().take_while(|part| part.ends_with(".slice")).count())
}

/// The unit that a directory stands for. systemd puts `_` before a name that the kernel could
/// take for an attribute file.
fn unit_name(part: &str) -> Option<String> {
    let name = part.strip_prefix('_').unwrap_or(part);
    let (stem, kind) = name.rsplit_once('.')?;
    let has_processes = matches!(kind, "service" | "scope" | "socket" | "mount" | "swap");
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    (has_processes && !stem.is_empty() && name.bytes().all(valid)).then(|| name.to_owned())
}

/// The text that systemd escaped to fit into a unit's name: `a\x2db` is `a-b`, `a-b` is `a/b`.
fn unescape_unit(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'\\', b'x', high, low, ..] => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(if *first == b'-' { b'/' } else { *first });
                rest = tail;
            }
        }
    }
    escape(&bytes)
}

#[cfg(test)]
mod tests;
