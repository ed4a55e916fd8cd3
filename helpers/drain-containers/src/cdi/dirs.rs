// SPDX-License-Identifier: MIT
//! The directories in which engines look for specifications: their defaults, and what each one's configuration names.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;

use engines::Running;
use step::Root;

/// Where every engine looks whose configuration names no directory; a later directory wins.
const USUAL: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Configurations of engines in TOML: Podman's, containerd's in the distributions of Kubernetes, CRI-O's.
const TOML: [&str; 10] = [
    "/usr/share/containers/containers.conf",
    "/etc/containers/containers.conf",
    "/etc/containerd/config.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/etc/k0s/containerd.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
    "/usr/lib/crio/crio.conf",
    "/etc/crio/crio.conf",
    "/etc/buildkit/buildkitd.toml",
];

/// Directories of fragments of these.
const FRAGMENTS: [&str; 6] = [
    "/usr/share/containers/containers.conf.d",
    "/etc/containers/containers.conf.d",
    "/etc/containerd/conf.d",
    "/etc/k0s/containerd.d",
    "/usr/lib/crio/crio.conf.d",
    "/etc/crio/crio.conf.d",
];

/// Configurations in JSON: Docker's, and that of its snap.
const JSON: [&str; 2] = ["/etc/docker/daemon.json", "/var/snap/docker/current/config/daemon.json"];

/// Where the snap of Docker keeps what it makes, whatever its configuration says.
const SNAPS: [&str; 2] = ["/var/snap/docker/current/etc/cdi", "/var/snap/docker/common/etc/cdi"];

/// The names under which a configuration has the directories.
const KEYS: [&str; 3] = ["cdi_spec_dirs", "cdi-spec-dirs", "specDirs"];

/// The directories, each once, and what could not be read.
///
/// # Errors
/// `/proc` cannot be read.
pub(super) fn directories(root: &Root) -> io::Result<(Vec<String>, Vec<String>)> {
    let (mut found, mut problems) = (USUAL.map(str::to_owned).to_vec(), Vec::new());
    let running = Running::look(root)?;
    let mut files: Vec<String> = TOML.iter().chain(&JSON).map(|file| (*file).to_owned()).collect();
    for directory in FRAGMENTS {
        for entry in fs::read_dir(root.path(directory)).into_iter().flatten().flatten() {
            files.push(format!("{directory}/{}", entry.file_name().to_string_lossy()));
        }
    }
    files.extend(running.configurations().map(str::to_owned));
    for file in files {
        let text = match fs::read_to_string(root.path(&file)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                problems.push(format!("{file}: {error}"));
                continue;
            }
        };
        match configured(&file, &text) {
            Ok(directories) => found.extend(directories),
            Err(error) => problems.push(format!("{file}: {error}")),
        }
    }
    found.extend(running.spec_directories().map(str::to_owned));
    found.extend(SNAPS.map(str::to_owned));
    // By another name it is the same.
    let mut seen = Vec::new();
    found.retain(|directory| {
        let Ok(meta) = fs::metadata(root.path(directory)) else { return false };
        let identity = (meta.dev(), meta.ino());
        let is_new = meta.is_dir() && !seen.contains(&identity);
        seen.push(identity);
        is_new
    });
    Ok((found, problems))
}

/// What a configuration says of directories, wherever in it.
fn configured(file: &str, text: &str) -> Result<Vec<String>, String> {
    let value: serde_json::Value = match file.ends_with(".json") {
        true => serde_json::from_str(text).map_err(|error| error.to_string())?,
        false => toml::from_str(text).map_err(|error| error.to_string())?,
    };
    let mut found = Vec::new();
    collect(&value, &mut found);
    found.retain(|directory: &String| directory.starts_with('/'));
    Ok(found)
}

fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(table) => {
            for (key, value) in table {
                match value.as_array().filter(|_| KEYS.contains(&key.as_str())) {
                    Some(list) => found.extend(list.iter().filter_map(|one| Some(one.as_str()?.to_owned()))),
                    None => collect(value, found),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engines_configuration_is_read() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let write = |path: &str, text: &str| golden::write(&root, path, text);
        for path in ["/proc", "/etc/cdi", "/run/cdi", "/a", "/b", "/c", "/d", "/e", "/f"] {
            fs::create_dir_all(root.path(path)).expect("creates");
        }
        fs::create_dir_all(root.path("/var")).expect("creates");
        std::os::unix::fs::symlink(root.path("/run"), root.path("/var/run")).expect("links");
        write("/etc/docker/daemon.json", r#"{"cdi-spec-dirs": ["/a", "/run/cdi", "/not-there"]}"#);
        write("/etc/containers/containers.conf.d/x.conf", "[engine]\ncdi_spec_dirs = [\"/b\"]\n");
        let containerd =
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\ncdi_spec_dirs = ['/etc/cdi', '/c']\n";
        write("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", containerd);
        write("/etc/crio/crio.conf", "[crio.runtime]\ncdi_spec_dirs = [\"/d\"]\n");
        write("/var/snap/docker/current/config/daemon.json", r#"{"cdi-spec-dirs": ["/e"]}"#);
        write("/etc/containerd/config.toml", "torn = [");
        let (found, problems) = directories(&root).expect("looks");
        assert_eq!(found, ["/etc/cdi", "/var/run/cdi", "/c", "/d", "/a", "/e", "/b"]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("/etc/containerd/config.toml: "), "{problems:?}");
    }
}
