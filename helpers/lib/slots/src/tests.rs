// SPDX-License-Identifier: MIT
//! A whole tree: saved, overwritten by another driver, put back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use modules::{DRIVER, Disk};
use step::Root;

use crate::collect::collect;
use crate::manifest::Origin;
use crate::save::{entries, is_put_back, make, still_right};
use crate::*;

mod harm;
mod heal;
mod layouts;
mod trust;

const OLD: &str = "535.261.03";
const NEW: &str = "550.163.01";
const LIB: &str = "/usr/lib/x86_64-linux-gnu";

fn write(root: &Root, path: &str, text: &str, mode: u32) {
    let real = root.path(path);
    fs::create_dir_all(real.parent().expect("has a parent")).expect("creates");
    // By a rename: a file that is removed first may leave its inode's number to the next.
    let new = real.with_file_name(".new");
    fs::write(&new, text).expect("writes");
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("sets");
    fs::rename(new, real).expect("renames");
}

fn link(root: &Root, path: &str, target: &str) {
    let real = root.path(path);
    let _ = fs::remove_file(&real);
    symlink(target, real).expect("links");
}

/// What an installer leaves of the driver `version`.
fn install(root: &Root, version: &str) {
    for name in ["libcuda", "libnvidia-ml"] {
        write(root, &format!("{LIB}/{name}.so.{version}"), &format!("{name} {version}"), 0o644);
        link(root, &format!("{LIB}/{name}.so.1"), &format!("{name}.so.{version}"));
        link(root, &format!("{LIB}/{name}.so"), &format!("{name}.so.1"));
    }
    write(root, &format!("/lib/firmware/nvidia/{version}/gsp_tu10x.bin"), version, 0o644);
    write(root, "/usr/bin/nvidia-smi", &format!("smi {version}"), 0o755);
    write(root, "/usr/bin/nvidia-modprobe", &format!("modprobe {version}"), 0o4755);
    write(root, "/usr/share/nvidia/nvoptix.bin", version, 0o644);
}

fn machine(root: &Root) {
    write(root, "/etc/ld.so.conf", &format!("{LIB}\n"), 0o644);
    write(root, &format!("{LIB}/libc.so.6"), "not ours", 0o644);
    write(root, "/usr/bin/true", "not ours", 0o755);
    install(root, OLD);
}

/// Saves the driver on disk, which has no kernel modules here.
fn saved(root: &Root) -> Slot {
    let disk = Disk::open(root).expect("opens");
    let driver = collect(root, &disk, OLD, Vec::new()).expect("collects");
    let _lock = lock_to_save(root).expect("locks");
    let place = crate::slot::place(root, OLD).expect("tells");
    make(root, &driver, OLD, entries(root, &driver).expect("describes"), &place).expect("saves");
    slots(root).expect("reads").remove(0)
}

/// Every file and link outside the slots, with mode and content.
fn tree(root: &Root) -> BTreeMap<String, (u32, String)> {
    let mut found = BTreeMap::new();
    for path in ["/usr", "/lib", "/etc"]
        .iter()
        .flat_map(|top| crate::tree::walk(root, Path::new(top)).expect("reads"))
    {
        let real = root.path(&path);
        let data = fs::symlink_metadata(&real).expect("is there");
        let content = match data.is_symlink() {
            true => fs::read_link(&real).expect("reads").display().to_string(),
            false => fs::read_to_string(&real).expect("reads"),
        };
        found.insert(path.display().to_string(), (data.mode(), content));
    }
    found
}

fn put_back(root: &Root, slot: &Slot) -> Placed {
    let disk = Disk::open(root).expect("opens");
    let others = on_disk(root, &disk, Some(slot)).expect("reads");
    let others = others.into_iter().filter(|version| version != OLD).collect();
    put_in_place(root, slot, &disk, &others).expect("puts back")
}

fn at_temporary() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    machine(&root);
    (directory, root)
}

#[test]
fn a_slot_is_for_a_kernel_and_all_but_the_modules_is_there_once() {
    let (_directory, root) = at_temporary();
    let first = saved(&root);
    let manifest = first.directory.join("manifest.json");
    let text = fs::read_to_string(&manifest).expect("reads");
    let other = text.replace(&first.manifest.kernel, "1.0-other");
    fs::write(&manifest, &other).expect("writes");
    // As if it were of another kernel, and then the same driver under this one.
    fs::write(root.path("/usr/bin/nvidia-debugdump"), "one that came later").expect("writes");
    let second = saved(&root);
    assert_eq!(second.directory, root.path(DIRECTORY).join(format!("{OLD}@{}", first.manifest.kernel)));
    let (slots, unusable) = all(&root).expect("reads");
    let kernels: Vec<&str> = slots.iter().map(|slot| slot.manifest.kernel.as_str()).collect();
    assert_eq!((kernels, unusable), (vec![first.manifest.kernel.as_str(), "1.0-other"], Vec::new()));
    assert!(slots.iter().all(|slot| slot.corrupt_files().is_empty()));
    let inode = |slot: &Slot, path: &str| {
        fs::metadata(slot.directory.join("files").join(path)).expect("is there").ino()
    };
    let library = &format!("{LIB}/libcuda.so.{OLD}")[1..];
    assert_eq!(inode(&second, library), inode(&first, library));
    assert!(library_in_slot(&root, OLD).starts_with(&second.directory), "that of the running kernel");
    // What is corrupt there is no donor.
    fs::write(first.directory.join("files").join(library), "corrupt").expect("writes");
    fs::remove_dir_all(&second.directory).expect("removes");
    let second = saved(&root);
    assert_ne!(inode(&second, library), inode(&first, library));
    assert_eq!(second.corrupt_files(), Vec::<String>::new());
    // Two kernels, and of the others the one that was used last.
    let third = root.path(DIRECTORY).join(format!("{OLD}@2.0-third"));
    fs::create_dir(&third).expect("creates");
    fs::write(third.join("manifest.json"), other.replace("1.0-other", "2.0-third")).expect("writes");
    crate::save::prune(&root, OLD).expect("removes");
    let left = [&first.directory, &second.directory, &third].map(|directory| directory.exists());
    assert_eq!(left, [false, true, true]);
}

#[test]
fn a_driver_of_rpm_has_what_its_packages_have() {
    let (_directory, root) = at_temporary();
    let rule = "/usr/lib/udev/rules.d/60-nvidia.rules";
    write(&root, rule, "only the package knows of it", 0o644);
    write(&root, "/usr/share/vulkan/icd.d/nvidia_icd.x86_64.json", "{}", 0o644);
    let script = format!(
        "case \"$*\" in *--file*/5.13/extra/nvidia.ko) echo package kmod-nvidia 3:{OLD}-1.el9.x86_64 kmod-nvidia-1;;\n\
         *--file*) echo package nvidia-driver 3:{OLD}-1.el9.x86_64 nvidia-driver-1;;\n\
         *) printf 'package 0 {rule}\\npackage 0 {LIB}/libcuda.so.{OLD}\\npackage 0 /usr/share/doc/nvidia/a\\n';; esac\n"
    );
    golden::script(&root.path("/usr/bin/rpm"), &script);
    let slot = saved(&root);
    assert_eq!(slot.manifest.origin, Origin::Rpm);
    assert_eq!(slot.manifest.packages[0].version, format!("3:{OLD}-1.el9.x86_64"));
    let has = |path: &str| slot.manifest.files.iter().any(|entry| entry.path() == path);
    assert!(has(rule) && has("/usr/bin/nvidia-smi"), "{:?}", slot.manifest.files);
    // RPM replaces it by a rename, so the blocks need not be there twice.
    let inode = |path: std::path::PathBuf| fs::metadata(path).expect("is there").ino();
    let library = format!("{LIB}/libcuda.so.{OLD}");
    assert_eq!(inode(slot.directory.join("files").join(&library[1..])), inode(root.path(&library)));
    // The module is of a package, too, which has nothing else of the driver's.
    let path = "/lib/modules/5.14/weak-updates/nvidia/nvidia.ko";
    write(&root, "/lib/modules/5.13/extra/nvidia.ko", "linked", 0o644);
    fs::create_dir_all(root.path(path).parent().expect("has a parent")).expect("creates");
    link(&root, path, "/lib/modules/5.13/extra/nvidia.ko");
    let file = modules::File {
        name: DRIVER.into(),
        alias: DRIVER.into(),
        path: root.path(path),
        version: Some(OLD.into()),
        srcversion: None,
        vermagic: None,
        options: String::new(),
    };
    let driver = collect(&root, &Disk::open(&root).expect("opens"), OLD, vec![file]).expect("collects");
    let names: Vec<&str> = driver.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["nvidia-driver", "kmod-nvidia"]);
}

#[test]
fn what_was_saved_comes_back_whole_and_the_other_goes() {
    let (_directory, root) = at_temporary();
    let before = tree(&root);
    let slot = saved(&root);
    assert_eq!(slot.manifest.origin, Origin::Names);
    assert_eq!(slot.corrupt_files(), Vec::<String>::new());
    assert!(library_in_slot(&root, OLD).exists());

    // As a package does it, and then one that only the new driver has.
    for version in [OLD, NEW] {
        for name in ["libcuda", "libnvidia-ml"] {
            let _ = fs::remove_file(root.path(format!("{LIB}/{name}.so.{version}")));
        }
    }
    install(&root, NEW);
    write(&root, &format!("{LIB}/libnvidia-new.so.{NEW}"), "new", 0o644);
    link(&root, &format!("{LIB}/libnvidia-new.so.1"), &format!("libnvidia-new.so.{NEW}"));
    // The power went while it was put back once before.
    write(&root, &format!("{LIB}/.libcuda.so.{OLD}.nvidia-reload"), "half", 0o600);

    let placed = put_back(&root, &slot);
    assert!(placed.removed.contains(Path::new(&format!("{LIB}/libnvidia-new.so.1"))), "{placed:?}");
    let mut after = tree(&root);
    // Firmware is by version: it shadows nothing.
    after.remove(&format!("/lib/firmware/nvidia/{NEW}/gsp_tu10x.bin")).expect("is left");
    assert_eq!(after, before);
    assert_eq!(put_back(&root, &slot), Placed::default(), "the second time there is nothing to do");

    let disk = Disk::open(&root).expect("opens");
    let driver = collect(&root, &disk, OLD, Vec::new()).expect("collects");
    let wanted = entries(&root, &driver).expect("describes");
    assert!(still_right(&slot, &wanted), "what was put back is what is saved");
}

#[test]
fn a_corrupt_slot_is_named_and_never_put_in_place() {
    let (_directory, root) = at_temporary();
    let slot = saved(&root);
    let library = library_in_slot(&root, OLD);
    fs::write(&library, "another text").expect("writes");
    let corrupt = slot.corrupt_files();
    assert!(matches!(corrupt.as_slice(), [one] if one.contains("libnvidia-ml.so.535.261.03")), "{corrupt:?}");
    assert_eq!(slot.corrupt_modules(), Vec::<String>::new());
    fs::remove_file(root.path(format!("{LIB}/libnvidia-ml.so.{OLD}"))).expect("removes");
    let disk = Disk::open(&root).expect("opens");
    let error = put_in_place(&root, &slot, &disk, &Default::default()).expect_err("is corrupt").to_string();
    assert!(error.contains("libnvidia-ml.so.535.261.03 is corrupt"), "{error}");
    assert!(!root.path(format!("{LIB}/libnvidia-ml.so.{OLD}")).exists());
    fs::remove_file(&library).expect("removes");
    assert_eq!(slot.corrupt_files().len(), 1);
}

#[test]
fn only_a_manifest_of_ours_makes_a_slot() {
    let (_directory, root) = at_temporary();
    let slot = saved(&root);
    let old = root.path(DIRECTORY).join("520.1");
    fs::create_dir(&old).expect("creates");
    fs::write(old.join("nvidia.ko"), "saved by an earlier version").expect("writes");
    let (found, unusable) = all(&root).expect("reads");
    assert_eq!((found, unusable[0].version.as_str()), (vec![slot], "520.1"));
    let manifest = root.path(DIRECTORY).join(OLD).join("manifest.json");
    let text = fs::read_to_string(&manifest).expect("reads");
    for (from, to) in
        [("slot/1", "slot/2"), ("\"/usr/bin/nvidia-smi\"", "\"/usr/../etc/shadow\""), ("\"uid\"", "\"x\"")]
    {
        fs::write(&manifest, text.replace(from, to)).expect("writes");
        assert!(all(&root).expect("reads").0.is_empty(), "{to}");
    }
}

#[test]
fn a_change_on_disk_makes_the_slot_again_and_missing_libraries_do_not() {
    let (_directory, root) = at_temporary();
    let slot = saved(&root);
    let right = || {
        let disk = Disk::open(&root).expect("opens");
        let driver = collect(&root, &disk, OLD, Vec::new()).expect("collects");
        still_right(&slot, &entries(&root, &driver).expect("describes"))
    };
    assert!(right());
    write(&root, "/usr/bin/nvidia-debugdump", "more", 0o755);
    assert!(!right());
    // In the middle of an upgrade one library after the other goes.
    for name in ["libcuda", "libnvidia-ml"] {
        fs::remove_file(root.path(format!("{LIB}/{name}.so.{OLD}"))).expect("removes");
        assert!(right());
    }
    fs::remove_file(library_in_slot(&root, OLD)).expect("removes");
    assert!(!right());
    assert!(crate::slot::slot(&root.path(DIRECTORY).join(OLD)).is_ok());
}

#[test]
fn packages_are_named_with_the_command_that_makes_them_match() {
    let (_directory, root) = at_temporary();
    let packages = |version: &str| {
        let list = format!(
            "{LIB}/libnvidia-ml.so.{version}\n{LIB}/libnvidia-ml.so.1\n/usr/share/doc/x\n/usr/share/nvidia-extra\n"
        );
        write(&root, "/var/lib/dpkg/info/libnvidia-ml1:amd64.list", &list, 0o644);
        let status = format!("Package: libnvidia-ml1\nArchitecture: amd64\nVersion: {version}-1\n");
        write(&root, "/var/lib/dpkg/status", &status, 0o644);
    };
    write(&root, "/usr/share/doc/x", "not to serve", 0o644);
    write(&root, "/usr/share/nvidia-extra", "listed", 0o644);
    packages(OLD);
    let slot = saved(&root);
    assert_eq!(slot.manifest.origin, Origin::Dpkg);
    let has = |path: &str| slot.manifest.files.iter().any(|entry| entry.path() == path);
    assert!(has("/usr/share/nvidia-extra") && !has("/usr/share/doc/x"));
    // dpkg replaces by a rename: there a hard link is safe.
    let inode = |path: &Path| fs::metadata(path).expect("is there").ino();
    let library = format!("{LIB}/libnvidia-ml.so.{OLD}");
    assert_eq!(inode(&library_in_slot(&root, OLD)), inode(&root.path(&library)));
    fs::remove_file(root.path(&library)).expect("removes");
    install(&root, NEW);
    packages(NEW);
    let placed = put_back(&root, &slot);
    assert_ne!(
        inode(&library_in_slot(&root, OLD)),
        inode(&root.path(&library)),
        "a copy: the slot is not written to"
    );
    let note = Note::write(&root, "r", &slot, Some(NEW.into()), &placed).expect("writes");
    assert_eq!(
        note.remedy,
        "`apt-get install --allow-downgrades libnvidia-ml1:amd64=535.261.03-1` makes the package database \
         agree; `apt-get install --reinstall libnvidia-ml1:amd64` puts 550.163.01 on disk again"
    );
    assert_eq!(Note::read(&root).expect("reads"), Some(note));
    // Saved now, the slot would name no package, or those of the other driver.
    let driver = collect(&root, &Disk::open(&root).expect("opens"), OLD, Vec::new()).expect("collects");
    assert_eq!(driver.packages, []);
    assert!(is_put_back(&root, &slot).expect("tells"));
    // Somebody installs over it.
    install(&root, OLD);
    assert_eq!(Note::read(&root).expect("reads"), None);
    assert!(!is_put_back(&root, &slot).expect("tells"));
}
