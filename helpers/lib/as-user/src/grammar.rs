// SPDX-License-Identifier: MIT
//! What names look like.

/// The types of units that are stopped and started. Slices, mounts, devices and scopes are not.
const TYPES: [&str; 5] = [".service", ".socket", ".timer", ".path", ".target"];

/// The longest name that systemd takes for a unit.
const LONGEST: usize = 255;

/// Whether `name` is the name of a unit of a type that is stopped and started, by systemd's grammar
/// (`systemd.unit(5)`), and is no template.
pub fn is_unit_name(name: &str) -> bool {
    let Some(stem) = TYPES.iter().find_map(|kind| name.strip_suffix(kind)) else { return false };
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let has_instance =
        stem.split_once('@').is_none_or(|(prefix, instance)| !prefix.is_empty() && !instance.is_empty());
    !stem.is_empty()
        && name.len() <= LONGEST
        && !stem.starts_with('.')
        && has_instance
        && stem.bytes().all(is_valid)
}

/// Whether `id` is the full id of a container.
pub fn is_container_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `name` is one that Docker and Podman give to a container.
pub fn is_container_name(name: &str) -> bool {
    name.len() <= LONGEST
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_systemds_and_of_a_type_that_is_stopped() {
        for good in [
            "a.service",
            "a@b.service",
            "run-u7.service",
            r"dev\x2da.socket",
            "a.b:c_d.timer",
            "x.path",
            "x.target",
        ] {
            assert!(is_unit_name(good), "{good}");
        }
        for bad in [
            "",
            ".service",
            "a",
            "a.slice",
            "a.scope",
            "a.mount",
            "-.mount",
            "../a.service",
            "/etc/cron.d/job",
            "/etc/a.service",
            "a b.service",
            "a\nb.service",
            "a\0.service",
            "é.service",
            "a@.service",
            "@a.service",
            "..service",
        ] {
            assert!(!is_unit_name(bad), "{bad:?}");
        }
        assert!(!is_unit_name(&format!("{}.service", "a".repeat(248))));
    }

    #[test]
    fn container_ids_and_names() {
        assert!(is_container_id(&"ab".repeat(32)));
        for bad in ["", "ab", "../build?remote=http://host&x=", "../containers/prune#"] {
            assert!(!is_container_id(bad), "{bad:?}");
        }
        assert!(!is_container_id(&"AB".repeat(32)));
        assert!(is_container_name("my_job-1.x"));
        for bad in ["", "-x", "a/b", "a\nb", "a b", "a\u{1b}[m"] {
            assert!(!is_container_name(bad), "{bad:?}");
        }
    }
}
