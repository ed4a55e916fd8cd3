// SPDX-License-Identifier: MIT
//! How Swarm asks for GPUs: by generic resources, which a task sees as variables.

use std::fs;

use step::Root;

/// Where NVIDIA's runtime and hook read which of these variables mean a GPU.
const CONFIGURATION: &str = "/etc/nvidia-container-runtime/config.toml";

/// The variables, such as `DOCKER_RESOURCE_GPU`; none by default.
pub(crate) fn resources(root: &Root) -> Vec<String> {
    let text = fs::read_to_string(root.path(CONFIGURATION)).unwrap_or_default();
    let config = text.parse::<toml::Table>().unwrap_or_default();
    let names = config.get("swarm-resource").and_then(toml::Value::as_str).unwrap_or_default();
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_configuration_names_the_variables() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert!(resources(&root).is_empty(), "no configuration");
        fs::create_dir_all(root.path("/etc/nvidia-container-runtime")).expect("creates");
        for (text, names) in [
            (
                "swarm-resource = \"DOCKER_RESOURCE_GPU\"\n[nvidia-container-cli]\n",
                &["DOCKER_RESOURCE_GPU"][..],
            ),
            (
                "swarm-resource = \"DOCKER_RESOURCE_A, DOCKER_RESOURCE_B,\"",
                &["DOCKER_RESOURCE_A", "DOCKER_RESOURCE_B"],
            ),
            ("#swarm-resource = \"DOCKER_RESOURCE_GPU\"", &[]),
            ("swarm-resource = 1", &[]),
            ("swarm-resource = [", &[]),
        ] {
            fs::write(root.path(CONFIGURATION), text).expect("writes");
            assert_eq!(resources(&root), names, "{text}");
        }
    }
}
