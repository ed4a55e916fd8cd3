//! Reading the specifications of the machine, and comparing them with it.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{major, minor};
use serde::Deserialize;
use step::Root;

/// Where engines look for them.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

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

/// The machine's specifications of NVIDIA's devices, in the order in which engines read them.
///
/// # Errors
/// A directory cannot be listed. A file that cannot be read is in the list, if its name says that it
/// is NVIDIA's.
pub(crate) fn specs(root: &Root) -> io::Result<Vec<Spec>> {
    let mut found = Vec::new();
    for directory in DIRECTORIES {
        let entries = match fs::read_dir(root.path(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let path = format!("{directory}/{name}");
            let content = match name.rsplit('.').next() {
                Some("json") => text(root, &path)
                    .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())),
                Some("yaml" | "yml") => text(root, &path)
                    .and_then(|text| serde_saphyr::from_str(&text).map_err(|error| error.to_string())),
                _ => continue,
            };
            let ours = match &content {
                Ok(Content { kind, .. }) => is_nvidia(kind),
                Err(_) => name.starts_with("nvidia"),
            };
            if ours {
                found.push(Spec { path, content });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn text(root: &Root, path: &str) -> Result<String, String> {
    fs::read_to_string(root.path(path)).map_err(|error| error.to_string())
}

fn is_nvidia(kind: &str) -> bool {
    let vendor = kind.split('/').next().unwrap_or_default();
    vendor == "nvidia.com" || vendor.ends_with(".nvidia.com")
}

impl Spec {
    /// What of it does not fit the machine: one sentence for each path, none twice.
    pub(crate) fn problems(&self, root: &Root) -> Vec<String> {
        let content = match &self.content {
            Ok(content) => content,
            Err(reason) => return vec![format!("it cannot be read: {reason}")],
        };
        let devices = content.devices.iter().flatten().filter_map(|device| device.container_edits.as_ref());
        let mut problems = Vec::new();
        for edits in devices.chain(&content.container_edits) {
            problems.extend(edits.device_nodes.iter().flatten().filter_map(|node| node.problem(root)));
            let mounts = edits.mounts.iter().flatten().map(|mount| &mount.host_path);
            let hooks = edits.hooks.iter().flatten().map(|hook| &hook.path);
            problems.extend(mounts.chain(hooks).filter_map(|path| look(root, path).err()));
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
        // Left out, the engine takes what it finds.
        let (Some(said_major), Some(said_minor)) = (self.major, self.minor) else { return None };
        let (is_major, is_minor) = (major(metadata.rdev()), minor(metadata.rdev()));
        ((said_major, said_minor) != (is_major, is_minor))
            .then(|| format!("{path} is device {is_major}:{is_minor}, and it says {said_major}:{said_minor}"))
    }
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
    fn every_path_and_number_is_compared() {
        let spec = Spec {
            path: "/etc/cdi/x.yaml".into(),
            content: Ok(serde_saphyr::from_str(YAML).expect("reads")),
        };
        assert_eq!(
            spec.problems(&Root::system()),
            [
                "/dev/null is device 1:3, and it says 510:0",
                "/etc/passwd is no character device",
                "/nonexistent/libcuda.so.535.261.03 does not exist",
                "/nonexistent/nvidia-ctk does not exist",
            ]
        );
    }

    #[test]
    fn only_nvidias_are_looked_at() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert!(specs(&root).expect("nothing is no error").is_empty());
        for directory in DIRECTORIES {
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
        let found = specs(&root).expect("reads");
        let paths: Vec<&str> = found.iter().map(|spec| spec.path.as_str()).collect();
        assert_eq!(paths, ["/etc/cdi/nvidia-torn.json", "/etc/cdi/nvidia.yaml", "/var/run/cdi/mig.json"]);
        assert!(found[0].problems(&root)[0].starts_with("it cannot be read"));
        assert!(found[2].problems(&root).is_empty());
    }
}
