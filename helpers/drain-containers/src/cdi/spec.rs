// SPDX-License-Identifier: MIT
//! Reading the specifications of the machine, and comparing them with it.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use modules::{driver_version, is_driver_version};
use rustix::fs::{major, minor};
use serde::Deserialize;
use step::Root;

use super::dirs::directories;

/// A specification of NVIDIA's devices.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Where it lies.
    pub(crate) path: String,
    /// What it says, or why it cannot be read.
    content: Result<Content, String>,
}

/// What counts here of the format (CDI's SPEC.md, 0.3 to 1.0). What else there is may be anything.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Content {
    kind: String,
    devices: Option<Vec<Device>>,
    container_edits: Option<Edits>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Device {
    name: String,
    container_edits: Option<Edits>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    device_nodes: Option<Vec<Node>>,
    mounts: Option<Vec<Mount>>,
    hooks: Option<Vec<Hook>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: Option<String>,
    major: Option<u32>,
    minor: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mount {
    host_path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Hook {
    path: String,
}

/// The machine's specifications of NVIDIA's devices, by their paths; and what kept a configuration from being
/// read that may name more directories.
///
/// # Errors
/// A directory cannot be listed. A file that cannot be read is in the list, if its name says that it
/// is NVIDIA's.
pub(crate) fn specs(root: &Root) -> io::Result<(Vec<Spec>, Vec<String>)> {
    let mut found = Vec::new();
    let (directories, problems) = directories(root)?;
    for directory in directories {
        let entries = match fs::read_dir(root.path(&directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let path = format!("{directory}/{name}");
            if !["json", "yaml", "yml"].iter().any(|end| name.rsplit('.').next() == Some(end)) {
                continue;
            }
            let spec = Spec::read(root, path);
            let ours = match &spec.content {
                Ok(Content { kind, .. }) => is_nvidia(kind),
                Err(_) => name.contains("nvidia"),
            };
            if ours {
                found.push(spec);
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok((found, problems))
}

/// The devices that two files in one directory both define: CDI then knows neither.
pub(crate) fn conflicts(specs: &[Spec]) -> Vec<String> {
    let directory = |spec: &Spec| spec.path.rsplit_once('/').map(|(directory, _)| directory.to_owned());
    let mut found = Vec::new();
    for (at, one) in specs.iter().enumerate() {
        for other in &specs[at + 1..] {
            if one.kind() != other.kind() || directory(one) != directory(other) {
                continue;
            }
            let names = other.names();
            if let Some(name) = one.names().into_iter().find(|name| names.contains(name)) {
                let kind = one.kind().unwrap_or_default();
                found.push(format!("{} and {} both define {kind}={name}", one.path, other.path));
            }
        }
    }
    found
}

fn is_nvidia(kind: &str) -> bool {
    let vendor = kind.split('/').next().unwrap_or_default();
    vendor == "nvidia.com" || vendor.ends_with(".nvidia.com")
}

impl Spec {
    /// Reads one file.
    pub(crate) fn read(root: &Root, path: String) -> Self {
        let text = fs::read_to_string(root.path(&path)).map_err(|error| error.to_string());
        let content = text.and_then(|text| match path.ends_with(".json") {
            true => serde_json::from_str(&text).map_err(|error| error.to_string()),
            false => serde_saphyr::from_str(&text).map_err(|error| error.to_string()),
        });
        Self { path, content }
    }

    /// `VENDOR/CLASS`, where it can be read.
    pub(crate) fn kind(&self) -> Option<&str> {
        self.content.as_ref().ok().map(|content| content.kind.as_str())
    }

    /// The names of its devices.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let devices = self.content.iter().flat_map(|content| content.devices.iter().flatten());
        devices.map(|device| device.name.as_str()).collect()
    }

    /// What of it does not fit the machine: one sentence for each path, none twice.
    pub(crate) fn problems(&self, root: &Root) -> Vec<String> {
        let content = match &self.content {
            Ok(content) => content,
            Err(reason) => return vec![format!("it cannot be read: {reason}")],
        };
        let devices = content.devices.iter().flatten().filter_map(|device| device.container_edits.as_ref());
        // What cannot be read is reported by the step that loads the driver.
        let loaded = driver_version(root).ok().flatten();
        let mut problems = Vec::new();
        for edits in devices.chain(&content.container_edits) {
            problems.extend(edits.device_nodes.iter().flatten().filter_map(|node| node.problem(root)));
            let mounts = edits.mounts.iter().flatten().map(|mount| &mount.host_path);
            let hooks = edits.hooks.iter().flatten().map(|hook| &hook.path);
            problems.extend(mounts.chain(hooks).filter_map(|path| look(root, path).err()));
            let mounts = edits.mounts.iter().flatten();
            problems
                .extend(mounts.filter_map(|mount| of_another_driver(&mount.host_path, loaded.as_deref()?)));
        }
        problems.sort();
        problems.dedup();
        problems
    }
}

impl Node {
    fn problem(&self, root: &Root) -> Option<String> {
        let path = self.host_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(&self.path);
        let metadata = match look(root, path) {
            Ok(metadata) => metadata,
            Err(problem) => return Some(problem),
        };
        if !metadata.file_type().is_char_device() {
            return Some(format!("{path} is no character device"));
        }
        // As CDI reads it: with a major number it takes both from the file, and a minor one that is left out
        // is 0; without, it takes both from the node.
        let (Some(said_major @ 1..), said_minor) = (self.major, self.minor.unwrap_or_default()) else {
            return None;
        };
        let (is_major, is_minor) = (major(metadata.rdev()), minor(metadata.rdev()));
        ((said_major, said_minor) != (is_major, is_minor)).then(|| {
            format!("{path} is device {is_major}:{is_minor}, but the file has {said_major}:{said_minor}")
        })
    }
}

/// A library that carries another driver's version in its name than the one that is loaded.
fn of_another_driver(path: &str, loaded: &str) -> Option<String> {
    let (_, version) = path.rsplit('/').next()?.split_once(".so.")?;
    (is_driver_version(version) && version != loaded)
        .then(|| format!("{path} is of driver {version}, and {loaded} is loaded"))
}

fn look(root: &Root, path: &str) -> Result<Metadata, String> {
    fs::metadata(root.path(path)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{path} does not exist"),
        _ => format!("{path}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = r#"---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/null
      major: 1
      minor: 3
    - path: /dev/nvidia0
      hostPath: /dev/null
      major: 510
      minor: 0
      fileMode: 438
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  deviceNodes:
  - path: /dev/null
  - path: /etc/passwd
  hooks:
  - hookName: createContainer
    path: /nonexistent/nvidia-ctk
    args: [nvidia-ctk, hook]
  mounts:
  - hostPath: /nonexistent/libcuda.so.535.261.03
    containerPath: /usr/lib/libcuda.so.535.261.03
  - hostPath: /etc/passwd
    containerPath: /etc/passwd
"#;

    #[test]
    fn a_library_of_another_driver_than_the_loaded_one_does_not_fit() {
        let of = |path| of_another_driver(path, "535.261.03");
        assert_eq!(of("/usr/lib/libcuda.so.535.261.03"), None);
        assert!(
            of("/usr/lib/libcuda.so.550.163.01").is_some_and(|said| said.contains("535.261.03 is loaded"))
        );
        // Not of the driver's version.
        for path in ["/usr/lib/libcuda.so.1", "/usr/lib/libnvidia-egl-gbm.so.1.1.0", "/dev/x", ""] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn every_path_and_number_is_compared() {
        let spec = Spec {
            path: "/etc/cdi/x.yaml".into(),
            content: Ok(serde_saphyr::from_str(YAML).expect("reads")),
        };
        assert_eq!(
            spec.problems(&Root::system()),
            [
                "/dev/null is device 1:3, but the file has 510:0",
                "/etc/passwd is no character device",
                "/nonexistent/libcuda.so.535.261.03 does not exist",
                "/nonexistent/nvidia-ctk does not exist",
            ]
        );
    }

    /// What CDI makes of a node's numbers in a file: Go leaves out what is 0.
    #[test]
    fn numbers_are_compared_as_cdi_reads_them() {
        let of = |numbers: &str| {
            let text = format!(
                "kind: nvidia.com/gpu\ncontainerEdits:\n  deviceNodes:\n  - path: /dev/zero\n{numbers}"
            );
            let content = Ok(serde_saphyr::from_str(&text).expect("reads"));
            Spec { path: "/etc/cdi/x.yaml".into(), content }.problems(&Root::system())
        };
        for right in ["", "    major: 1\n    minor: 5\n", "    minor: 7\n", "    major: 0\n"] {
            assert_eq!(of(right), [""; 0], "{right:?}");
        }
        assert_eq!(of("    major: 510\n"), ["/dev/zero is device 1:5, but the file has 510:0"]);
        assert_eq!(of("    major: 1\n"), ["/dev/zero is device 1:5, but the file has 1:0"]);
    }

    #[test]
    fn a_device_that_two_files_define_is_named() {
        let spec = |path: &str, kind: &str, names: &[&str]| {
            let devices: Vec<_> = names.iter().map(|name| serde_json::json!({"name": name})).collect();
            let text = serde_json::json!({"kind": kind, "devices": devices}).to_string();
            Spec { path: path.into(), content: Ok(serde_json::from_str(&text).expect("reads")) }
        };
        let specs = [
            spec("/etc/cdi/a.json", "nvidia.com/gpu", &["0", "all"]),
            spec("/etc/cdi/b.json", "nvidia.com/gpu", &["GPU-1", "all"]),
            spec("/etc/cdi/c.json", "management.nvidia.com/gpu", &["all"]),
            // A later directory wins: that is no conflict.
            spec("/var/run/cdi/d.json", "nvidia.com/gpu", &["0", "all"]),
        ];
        assert_eq!(conflicts(&specs), ["/etc/cdi/a.json and /etc/cdi/b.json both define nvidia.com/gpu=all"]);
    }

    #[test]
    fn only_nvidias_are_looked_at() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for directory in ["/proc", "/etc", "/var/run"] {
            fs::create_dir_all(root.path(directory)).expect("creates");
        }
        assert!(specs(&root).expect("nothing is no error").0.is_empty());
        for directory in ["/etc/cdi", "/var/run/cdi"] {
            fs::create_dir_all(root.path(directory)).expect("creates");
        }
        for (path, text) in [
            ("/etc/cdi/nvidia.yaml", YAML),
            ("/etc/cdi/torn.yaml", "kind: ["),
            ("/etc/cdi/nvidia-torn.json", "{"),
            ("/etc/cdi/README", "kind: nvidia.com/gpu"),
            ("/var/run/cdi/nic.json", r#"{"kind": "acme.com/nic", "devices": null}"#),
            ("/var/run/cdi/mig.json", r#"{"kind": "management.nvidia.com/gpu", "devices": null}"#),
        ] {
            fs::write(root.path(path), text).expect("writes");
        }
        let (found, _) = specs(&root).expect("reads");
        let paths: Vec<&str> = found.iter().map(|spec| spec.path.as_str()).collect();
        assert_eq!(paths, ["/etc/cdi/nvidia-torn.json", "/etc/cdi/nvidia.yaml", "/var/run/cdi/mig.json"]);
        assert!(found[0].problems(&root)[0].starts_with("it cannot be read"));
        assert!(found[2].problems(&root).is_empty());
    }
}
