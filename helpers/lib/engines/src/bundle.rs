// SPDX-License-Identifier: MIT
//! What a container's runtime was asked to make: the OCI bundle on disk.
//!
//! The engine's own answer leaves out what was injected at the start: Podman does not name CDI
//! devices, and NVIDIA's runtime adds nodes behind the engine's back. The bundle, which the runtime was
//! started with, has them all. Where it lies is for [`crate::running::Running`] to tell.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{major, minor};
use serde::Deserialize;
use step::Root;

use crate::numbers::Number;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    linux: Linux,
    mounts: Option<Vec<Mount>>,
    process: Process,
    hooks: Option<BTreeMap<String, Vec<Hook>>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Process {
    env: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Mount {
    source: String,
    destination: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Hook {
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    devices: Option<Vec<Node>>,
    resources: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    devices: Option<Vec<Rule>>,
}

/// Which devices may be opened; without a kind or a number, all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rule {
    allow: bool,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    access: Option<String>,
}

impl Rule {
    /// Whether it lets a character device be opened. To make a node is not enough for that.
    pub fn allows(&self, (major, minor): Number) -> bool {
        let fits = |rule: Option<i64>, number: u32| rule.is_none_or(|at| at < 0 || at == i64::from(number));
        self.allow
            && self.kind.as_deref().is_none_or(|kind| matches!(kind, "a" | "c" | "u"))
            && self.access.as_deref().is_none_or(|access| access.is_empty() || access.contains(['r', 'w']))
            && fits(self.major, major)
            && fits(self.minor, minor)
    }

    /// The one number that it is for, or the first where it is for a whole major number.
    pub fn number(&self) -> Option<Number> {
        let major = self.major.and_then(|major| u32::try_from(major).ok())?;
        Some((major, self.minor.and_then(|minor| u32::try_from(minor).ok()).unwrap_or_default()))
    }

    /// Whether it lets every device be opened, as those of a privileged container do.
    fn allows_all(&self) -> bool {
        let is_any = |number: Option<i64>| number.is_none_or(|at| at < 0);
        self.allow
            && self.kind.as_deref().is_none_or(|kind| kind.is_empty() || kind == "a")
            && is_any(self.major)
            && is_any(self.minor)
            && self.access.as_deref().is_none_or(|access| access.is_empty() || access.contains(['r', 'w']))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Node {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    major: u32,
    minor: u32,
}

/// What a container was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The character devices.
    pub devices: Vec<(String, Number)>,
    /// The environment.
    pub environment: Vec<String>,
    /// Whether it may open every device of the host.
    pub privileged: bool,
    /// Which devices it may open besides.
    pub rules: Vec<Rule>,
    /// What of the host is mounted: from where, to where.
    pub mounts: Vec<(String, String)>,
    /// Whether NVIDIA's hook runs at its start, which goes by the environment and makes nodes that no bundle
    /// shows.
    pub has_hook: bool,
    /// The runtime's program; none where it is the engine's usual one, or where that is not known.
    pub runtime: Option<String>,
    /// What its engine noted beside it.
    pub annotations: BTreeMap<String, String>,
    /// Its first process, in our pid namespace.
    pub pid: Option<i32>,
}

impl Bundle {
    /// Reads the bundle in `directory`, with the notes that containerd's shim or CRI-O puts beside it; none
    /// where there is no bundle, or none that can be understood.
    pub fn read(directory: &Path) -> Option<Self> {
        let mut bundle = Self::parse(&fs::read(directory.join("config.json")).ok()?)?;
        let note = |name: &str| Some(fs::read_to_string(directory.join(name)).ok()?.trim().to_owned());
        bundle.runtime = note("runtime").filter(|program| !program.is_empty());
        bundle.pid = note("init.pid").or_else(|| note("pidfile")).and_then(|pid| pid.parse().ok());
        Some(bundle)
    }

    /// Reads the text of a bundle's `config.json`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let spec: Spec = serde_json::from_slice(text).ok()?;
        let rules = spec.linux.resources.devices.unwrap_or_default();
        let hooks = spec.hooks.iter().flat_map(BTreeMap::values).flatten();
        let devices = spec.linux.devices.unwrap_or_default().into_iter();
        Some(Self {
            devices: devices
                .filter(|node| node.kind == "c" || node.kind == "u")
                .map(|node| (node.path, (node.major, node.minor)))
                .collect(),
            environment: spec.process.env.unwrap_or_default(),
            privileged: rules.iter().any(Rule::allows_all),
            rules: rules.into_iter().filter(|rule| rule.allow).collect(),
            mounts: spec
                .mounts
                .into_iter()
                .flatten()
                .filter(|mount| mount.source.starts_with('/'))
                .map(|mount| (mount.source, mount.destination))
                .collect(),
            has_hook: hooks.into_iter().any(|hook| is_nvidias_program(&hook.path)),
            runtime: None,
            annotations: spec.annotations.unwrap_or_default(),
            pid: None,
        })
    }
}

/// The character devices of a bundle of a user's own Podman. Without the right to make nodes it mounts the
/// host's.
pub fn mounted(root: &Root, directory: &str) -> Vec<(String, Number)> {
    let Some(bundle) = Bundle::read(&root.path(directory)) else { return Vec::new() };
    let sources = bundle.mounts.iter().filter_map(|(source, _)| {
        let node = fs::metadata(root.path(source)).ok()?;
        let number = (major(node.rdev()), minor(node.rdev()));
        node.file_type().is_char_device().then(|| (source.clone(), number))
    });
    sources.chain(bundle.devices.iter().cloned()).collect()
}

/// Whether an id can be a part of a path.
pub(crate) fn is_id(id: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !id.is_empty() && !id.starts_with('.') && id.bytes().all(is_fine)
}

/// Whether a program is NVIDIA's runtime, in any of its modes, or the hook of it that goes by the environment.
pub fn is_nvidias_program(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "nvidia-container-runtime"
        || name == "nvidia-container-runtime-hook"
        || name == "nvidia-container-toolkit"
        || name.strip_prefix("nvidia-container-runtime.").is_some_and(|mode| !mode.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_names_nodes_by_number() {
        let text = br#"{"ociVersion":"1.0.2","linux":{"devices":[
            {"path":"/dev/nvidiactl","type":"c","major":195,"minor":255,"fileMode":438},
            {"path":"/dev/sda","type":"b","major":8,"minor":0}],"namespaces":[]}}"#;
        let bundle = Bundle::parse(text).expect("is a bundle");
        assert_eq!(bundle.devices, [("/dev/nvidiactl".to_owned(), (195, 255))]);
        assert_eq!(Bundle::parse(b"{}"), Some(Bundle::default()));
        assert_eq!(Bundle::parse(br#"{"linux":{"devices":null},"mounts":null}"#), Some(Bundle::default()));
        for torn in [&b""[..], b"{", br#"{"linux":7}"#] {
            assert_eq!(Bundle::parse(torn), None, "what cannot be read does not say that there is no GPU");
        }
    }

    #[test]
    fn no_id_leads_out_of_a_directory() {
        for id in ["0a1b", "nvidia-cuda_1.2"] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", "..", ".", "../../etc", "a/b", "a b", "a\0"] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn a_privileged_container_may_open_all() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let bundle = |rules: &str| {
            let text = format!(
                r#"{{"process":{{"env":["A=1"]}},"linux":{{"resources":{{"devices":[{rules}]}},
                "devices":[{{"path":"/dev/nvidia0","type":"c","major":195,"minor":0}}]}}}}"#
            );
            fs::write(directory.path().join("config.json"), text).expect("writes");
            Bundle::read(directory.path()).expect("reads")
        };
        let one = bundle(
            r#"{"allow":false,"access":"rwm"},{"allow":true,"type":"c","access":"m"},
            {"allow":true,"type":"c","major":195,"access":"rw"}"#,
        );
        assert_eq!(one.devices, [("/dev/nvidia0".to_owned(), (195, 0))]);
        assert_eq!((one.environment.as_slice(), one.privileged), (&["A=1".to_owned()][..], false));
        let allows = |bundle: &Bundle, number| bundle.rules.iter().any(|rule| rule.allows(number));
        assert_eq!((allows(&one, (195, 7)), allows(&one, (510, 0))), (true, false), "to make is not to open");
        assert!(bundle(r#"{"allow":true,"access":"rwm"}"#).privileged);
        assert!(bundle(r#"{"allow":true,"type":"a","major":-1,"minor":-1,"access":"rwm"}"#).privileged);
        assert!(!bundle(r#"{"allow":true,"type":"a","major":195,"access":"rwm"}"#).privileged);
    }

    #[test]
    fn the_runtime_and_its_hook_are_known() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("writes");
        let read = || Bundle::read(directory.path()).expect("reads");
        write("config.json", r#"{"hooks":{"prestart":[{"path":"/usr/sbin/dockerd"}],"poststop":[]}}"#);
        write("runtime", "");
        write("init.pid", "4711");
        assert_eq!((read().has_hook, read().runtime, read().pid), (false, None, Some(4711)));
        write("runtime", "/usr/bin/nvidia-container-runtime\n");
        assert_eq!(read().runtime.as_deref(), Some("/usr/bin/nvidia-container-runtime"));
        for (path, is) in [
            ("/usr/bin/nvidia-container-runtime-hook", true),
            ("/usr/local/nvidia/toolkit/nvidia-container-toolkit", true),
            // What CDI has run at each start makes no nodes by the environment.
            ("/usr/bin/nvidia-cdi-hook", false),
            ("/usr/bin/nvidia-ctk", false),
        ] {
            write("config.json", &format!(r#"{{"hooks":{{"prestart":[{{"path":"{path}"}}]}}}}"#));
            assert_eq!(read().has_hook, is, "{path}");
        }
    }

    #[test]
    fn a_users_podman_mounts_the_hosts_nodes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = r#"{"mounts":[{"type":"bind","source":"/dev/null"},{"type":"proc","source":"proc"},
            {"type":"bind","source":"/etc"}],"linux":{"devices":null}}"#;
        fs::write(directory.path().join("config.json"), text).expect("writes");
        let place = directory.path().to_str().expect("is text");
        assert_eq!(mounted(&Root::system(), place), [("/dev/null".to_owned(), (1, 3))]);
        assert_eq!(mounted(&Root::system(), "/nonexistent"), []);
    }
}
