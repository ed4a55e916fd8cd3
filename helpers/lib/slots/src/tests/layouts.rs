// SPDX-License-Identifier: MIT
//! The driver of each machine in `tests/golden`, saved to a slot, lost, and put back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use modules::{DRIVER, Disk};
use step::Root;

use super::put_in_place;
use crate::collect::collect;
use crate::save::{entries, make};
use crate::{Entry, lock_to_save, slots};

/// Every file and link that a driver may have on a machine, with its content.
fn content(root: &Root) -> BTreeMap<PathBuf, Vec<u8>> {
    let tops = ["/usr", "/lib", "/run"].map(Path::new);
    let paths = tops.iter().flat_map(|top| crate::tree::walk(root, top).expect("reads"));
    paths
        .map(|path| {
            let real = root.path(&path);
            let bytes = match fs::read_link(&real) {
                Ok(target) => target.to_string_lossy().into_owned().into_bytes(),
                Err(_) => fs::read(&real).expect("reads"),
            };
            (path, bytes)
        })
        .collect()
}

#[test]
fn the_driver_of_every_layout_comes_back_as_it_was() {
    golden::compare(&["slot"], |machine| {
        let root = &machine.root;
        let disk = Disk::open(root).expect("opens");
        let found = [DRIVER, "nvidia_uvm"].map(|name| disk.find(name).ok().flatten());
        let [Some(driver), Some(uvm)] = found else { return String::new() };
        let version = driver.version.clone().expect("has one");
        // Half an upgrade is not saved.
        if machine.library_version() != Some(version.as_str()) || uvm.version.as_ref() != Some(&version) {
            return String::new();
        }
        fs::create_dir_all(root.path("/etc")).expect("creates");
        fs::write(
            root.path("/etc/ld.so.conf"),
            "/usr/lib/x86_64-linux-gnu\n/usr/lib/aarch64-linux-gnu\n/run/opengl-driver/lib\n",
        )
        .expect("writes");
        fs::create_dir_all(root.path("/run")).expect("creates");
        let saved = collect(root, &disk, &version, vec![driver, uvm]).expect("collects");
        let _lock = lock_to_save(root).expect("locks");
        let wanted = entries(root, &saved).expect("describes");
        make(root, &saved, &version, wanted, &root.path(crate::DIRECTORY).join(&version)).expect("saves");
        let slot = slots(root).expect("reads").remove(0);
        assert_eq!(slot.corrupt_files(), Vec::<String>::new(), "{}", machine.name);
        let before = content(root);
        let names: Vec<&str> = slot.manifest.files.iter().map(Entry::path).collect();
        names.iter().for_each(|name| fs::remove_file(root.path(name)).expect("removes"));
        let disk = Disk::open(root).expect("opens");
        put_in_place(root, &slot, &disk, &Default::default()).expect("puts back");
        assert!(content(root) == before, "{}: not as it was", machine.name);
        machine.line("slot", &names.join(", "))
    });
}
