// SPDX-License-Identifier: MIT
//! Device numbers that an engine noted when it made a container, and that mean nothing any more.
//!
//! Docker looks at a device's path at each start. Podman, as root, looks once, when it makes the
//! container: started again after a change of the driver, such a container has a node that leads
//! nowhere, or elsewhere (observed with Podman 4.3).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{major, minor};
use step::Root;

use crate::numbers::{Machine, NVIDIA};
use crate::{Kind, Running};

/// What of a container that runs leads to the previous driver: a sentence for each node.
///
/// `before` are the driver's majors of then, with their names in `/proc/devices`.
///
/// # Errors
/// `/proc` cannot be read, or the container's bundle is not found.
pub fn stale(root: &Root, engine: Kind, id: &str, before: &[(String, u32)]) -> io::Result<Vec<String>> {
    if engine != Kind::Podman {
        return Ok(Vec::new());
    }
    let machine = Machine::load(root)?;
    let Some(bundle) = Running::look(root)?.of_monitor(root, id) else {
        return Err(io::Error::other("its OCI bundle is not found"));
    };
    let mut stale = Vec::new();
    for (path, number) in bundle.devices {
        // Registered: it never moves, whatever the driver calls it (nvidia-frontend up to 535).
        if number.0 == NVIDIA {
            continue;
        }
        let Some((class, _)) = before.iter().find(|(_, major)| *major == number.0) else { continue };
        let now = machine.major(class);
        // Another class may have the number now, and the node may be one of that class.
        if now == Some(number.0) || is_at(root, &path, number) {
            continue;
        }
        let now = now.map_or_else(|| "gone".to_owned(), |now| now.to_string());
        stale.push(format!("{path} leads to {}:{}, and {class} is {now}", number.0, number.1));
    }
    Ok(stale)
}

fn is_at(root: &Root, path: &str, number: (u32, u32)) -> bool {
    fs::metadata(root.path(path)).is_ok_and(|node| (major(node.rdev()), minor(node.rdev())) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_moved_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let write = |path: &str, text: &str| golden::write(&root, path, text);
        let bundle = r#"{"linux":{"devices":[{"path":"/dev/thing","type":"c","major":195,"minor":255},
            {"path":"/dev/nvidia-uvm","type":"c","major":242,"minor":0},
            {"path":"/dev/fuse","type":"c","major":10,"minor":229}]}}"#;
        write("/var/lib/containers/storage/overlay-containers/ab/userdata/config.json", bundle);
        fs::create_dir_all(root.path("/proc")).expect("creates");
        let before = [("nvidia-frontend".to_owned(), 195), ("nvidia-uvm".to_owned(), 242)];
        let look = || stale(&root, Kind::Podman, "ab", &before).expect("looks");
        write("/proc/devices", "Character devices:\n195 nvidia\n242 nvidia-uvm\n");
        assert_eq!(look(), Vec::<String>::new());
        write("/proc/devices", "Character devices:\n195 nvidia\n241 nvidia-uvm\n242 nvidia-caps\n");
        assert_eq!(look(), ["/dev/nvidia-uvm leads to 242:0, and nvidia-uvm is 241"]);
        write("/proc/devices", "Character devices:\n195 nvidia\n");
        assert_eq!(look(), ["/dev/nvidia-uvm leads to 242:0, and nvidia-uvm is gone"]);
        stale(&root, Kind::Podman, "cd", &before).expect_err("a bundle that is not found is said");
        let moved = bundle.replace("242", "243");
        write("/srv/storage/vfs-containers/cd/userdata/config.json", &moved);
        let cmdline = b"/usr/bin/conmon\0-c\0cd\0-b\0/srv/storage/vfs-containers/cd/userdata\0";
        crate::running::tests::process(&root, 7, "conmon", cmdline);
        let before = [("nvidia-uvm".to_owned(), 243)];
        let look = stale(&root, Kind::Podman, "cd", &before).expect("its monitor tells where it is");
        assert_eq!(look, ["/dev/nvidia-uvm leads to 243:0, and nvidia-uvm is gone"]);
    }
}
