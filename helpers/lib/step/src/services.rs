// SPDX-License-Identifier: MIT
//! NVIDIA's own services.

use serde::{Deserialize, Serialize};

use crate::{Config, Root};

/// Those of [`services_there`] that are down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesDown {
    /// Those that a run would start, and how each failed, in words.
    pub failed: Vec<(String, String)>,
    /// Those that no unit wants: whatever becomes of them, a run does not start them.
    pub unwanted: Vec<String>,
}

/// NVIDIA's services in the order of their starts: who is needed comes first.
pub const NVIDIAS_SERVICES: [&[&str]; 6] = [
    &["nvlsm.service"],
    &["nvidia-fabricmanager.service"],
    &["nvidia-imex.service"],
    &["nvidia-persistenced.service"],
    &["nvidia-dcgm.service", "dcgm.service"],
    &[
        "nvidia-dcgm-exporter.service",
        "dcgm-exporter.service",
        "nvidia-powerd.service",
        "nvidia-topologyd.service",
        "nvidia-gridd.service",
        "nvidia-vgpud.service",
        "nvidia-vgpu-mgr.service",
    ],
];

/// Where systemd looks for unit files: systemd.unit(5), system units.
const PLACES: [&str; 9] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/transient",
    "/run/systemd/generator",
    "/run/systemd/generator.early",
    "/run/systemd/generator.late",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Those of NVIDIA's services, and of those that the configuration names, that are on this machine: one that is
/// not cannot have failed, and to ask the manager for each takes longer than a whole step.
pub fn services_there<'a>(root: &Root, config: &'a Config) -> impl Iterator<Item = &'a str> {
    let nvidias = NVIDIAS_SERVICES.iter().copied().flatten().copied();
    let names = nvidias.chain(config.services.restart.iter().map(String::as_str));
    names.filter(move |name| {
        // An instance has the file of its template.
        let file = match (name.split_once('@'), name.rsplit_once('.')) {
            (Some((template, _)), Some((_, suffix))) => format!("{template}@.{suffix}"),
            _ => (*name).to_owned(),
        };
        let is_in = |place: &&str| [*name, &file].iter().any(|file| exists(root, &format!("{place}/{file}")));
        PLACES.iter().any(is_in)
    })
}

/// What cannot be looked at may be there.
fn exists(root: &Root, path: &str) -> bool {
    match root.path(path).symlink_metadata() {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_there_with_its_file_wherever_that_is() {
        for (file, restart, expected) in [
            ("/usr/share/nvidia-persistenced.service", None, false),
            ("/lib/systemd/system/nvidia-persistenced.service", None, true),
            ("/run/systemd/transient/nvlsm.service", None, true),
            ("/etc/systemd/system/ollama.service", None, false),
            ("/etc/systemd/system/ollama.service", Some("ollama.service"), true),
            ("/etc/systemd/system/serve@.service", Some("serve@7.service"), true),
            ("/etc/systemd/system/serve@.service", Some("other@7.service"), false),
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            let path = root.path(file);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("creates");
            std::fs::write(path, "").expect("writes");
            let mut config = Config::default();
            config.services.restart.extend(restart.map(str::to_owned));
            assert_eq!(services_there(&root, &config).next().is_some(), expected, "{file} {restart:?}");
        }
    }
}
