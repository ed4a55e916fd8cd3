// SPDX-License-Identifier: MIT
//! Disks that are damaged, full, shared with others, or changed meanwhile.

use std::time::{Duration, UNIX_EPOCH};

use modules::DRIVER;

use super::*;
use crate::save::prune;

/// A kernel module that declares itself to be `name` in `version`, and has no code.
fn module(name: &str, version: &str) -> Vec<u8> {
    let info = format!("name={name}\0version={version}\0srcversion={version}\0vermagic=x\0");
    let names = b"\0.modinfo\0.strtab\0";
    let header = |name: u32, kind: u32, at: usize, size: usize| {
        let mut bytes = Vec::new();
        bytes.extend(name.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        for field in [0, 0, at as u64, size as u64] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend([0; 24]);
        bytes
    };
    // A relocatable file for x86-64: elf(5).
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0".to_vec();
    file.extend([0; 16]);
    file.extend(64_u64.to_le_bytes());
    file.extend([0; 4]);
    for field in [64_u16, 0, 0, 64, 3, 2] {
        file.extend(field.to_le_bytes());
    }
    let at = 64 + 3 * 64;
    file.extend([0; 64]);
    file.extend(header(1, 1, at, info.len()));
    file.extend(header(10, 3, at + info.len(), names.len()));
    file.extend(info.as_bytes());
    file.extend(names);
    file
}

/// Puts module files where the running kernel looks, and in its index.
fn modules(root: &Root, files: &[(&str, &[u8])]) {
    let disk = Disk::open(root).expect("opens");
    let mut index = String::new();
    for (path, content) in files {
        let real = disk.directory().join(path);
        fs::create_dir_all(real.parent().expect("has a parent")).expect("creates");
        fs::write(real, content).expect("writes");
        index += &format!("{path}:\n");
    }
    fs::write(disk.directory().join("modules.dep"), index).expect("writes");
}

#[test]
fn a_module_of_zeros_is_passed_over_and_taken_away() {
    let (_directory, root) = at_temporary();
    let slot = saved(&root);
    let (damaged, renamed) = ("kernel/drivers/video/nvidia.ko", "kernel/drivers/video/nvidia-current.ko");
    let (other, new) = ("kernel/drivers/video/nvidia-wmi.ko", "updates/nvidia-uvm.ko");
    modules(
        &root,
        &[(damaged, &[0; 999]), (renamed, &[0; 9]), (other, &[0; 99]), (new, &module("nvidia_uvm", NEW))],
    );
    let disk = Disk::open(&root).expect("opens");
    assert!(disk.find(DRIVER).is_err(), "it is one that stops a search");
    assert_eq!(find(&disk, DRIVER).expect("passes over"), None);
    assert_eq!(
        on_disk(&root, &disk, Some(&slot)).expect("passes over"),
        [NEW, OLD].map(str::to_owned).into()
    );
    assert!(!disk.misses_files().expect("reads"));
    put_back(&root, &slot);
    let left = [damaged, renamed, other, new].map(|path| disk.directory().join(path).exists());
    // The third is not known to be a driver's.
    assert_eq!(left, [false, true, true, false]);
    assert!(
        Disk::open(&root).expect("opens").misses_files().expect("reads"),
        "the index has to be made again"
    );
    assert_eq!(saved(&root).manifest.files, slot.manifest.files, "what is left is no part of the driver");
}

#[test]
fn what_other_packages_have_stays() {
    let (_directory, root) = at_temporary();
    let slot = saved(&root);
    install(&root, NEW);
    let beside = format!("{LIB}/nvidia/tesla-470");
    let stays = [
        // Debian's driver beside the driver.
        format!("{beside}/libcuda.so.470.256.02"),
        format!("{beside}/libnvidia-ml.so.470.256.02"),
        // CUDA's forward compatibility, even of the new driver's version.
        format!("/usr/local/cuda-12.4/compat/libcuda.so.{NEW}"),
        "/usr/local/cuda-12.4/compat/libcuda.so.555.42.06".to_owned(),
        // Tegra's.
        format!("{LIB}/libcuda.so.1.1"),
        format!("{LIB}/libssl.so.1.1"),
        // Of the same version by chance.
        format!("{LIB}/libother.so.{NEW}"),
    ];
    stays.iter().for_each(|path| write(&root, path, path, 0o644));
    write(&root, "/etc/ld.so.conf", &format!("{LIB}\n/usr/local/cuda-12.4/compat\n"), 0o644);
    let [new, tesla] = ["updates/dkms/nvidia-current.ko", "updates/dkms/nvidia-tesla-470.ko"];
    modules(&root, &[(tesla, &module("nvidia", "470.256.02")), (new, &module("nvidia", NEW))]);
    write(&root, "/etc/modprobe.d/nvidia.conf", "install nvidia modprobe -i nvidia-current\n", 0o644);
    let gone = [format!("{LIB}/libGLX_nvidia.so.{NEW}"), format!("{LIB}/libcuda.so.{NEW}")];
    write(&root, &gone[0], "new", 0o644);
    put_back(&root, &slot);
    for path in &stays {
        assert!(root.path(path).exists(), "{path}");
    }
    for path in &gone {
        assert!(!root.path(path).exists(), "{path}");
    }
    let directory = Disk::open(&root).expect("opens").directory().to_owned();
    assert!(directory.join(tesla).exists() && !directory.join(new).exists());
}

#[test]
fn a_slot_for_another_kernel_leaves_the_modules_of_this_one() {
    let (_directory, root) = at_temporary();
    let path = "updates/nvidia.ko";
    modules(&root, &[(path, &module(DRIVER, OLD))]);
    let old = |slot: &Slot| {
        let module = slot.manifest.regular().find_map(|file| file.module.clone()).expect("is saved");
        let [version, srcversion] = [module.version, module.srcversion];
        let loaded = ledger::Module { name: module.name, version, srcversion, parameters: BTreeMap::new() };
        (slot.find(&loaded).is_some(), slot.has(&loaded).is_some())
    };
    let mut slot = saved(&root);
    assert_eq!(old(&slot), (true, true));
    assert_eq!(slot.misfit(), None);
    // As after a boot of another kernel, which has the new driver.
    let here = Disk::open(&root).expect("opens").directory().join(path);
    fs::write(&here, module(DRIVER, NEW)).expect("writes");
    slot.manifest.kernel = "1.0-another".into();
    for entry in &mut slot.manifest.files {
        if let Entry::File(SavedFile { module: Some(_), path, .. }) = entry {
            *path = "/lib/modules/1.0-another/updates/nvidia.ko".into();
        }
    }
    assert_eq!(old(&slot), (false, true));
    install(&root, NEW);
    let placed = put_back(&root, &slot);
    assert!(placed.removed.contains(Path::new(&format!("{LIB}/libcuda.so.{NEW}"))), "{placed:?}");
    assert!(here.exists(), "there is no other for this kernel");
    let other = root.path("/lib/modules/1.0-another");
    assert!(!other.exists(), "a kernel that was removed gets nothing");
    fs::create_dir(&other).expect("creates");
    put_back(&root, &slot);
    assert!(other.join(path).exists());
}

#[test]
fn what_changes_while_it_is_saved_is_not_saved_and_leaves_nothing() {
    let (_directory, root) = at_temporary();
    modules(&root, &[("updates/nvidia.ko", &module(DRIVER, OLD))]);
    let slot = saved(&root);
    let place = root.path(DIRECTORY);
    let real = Disk::open(&root).expect("opens").directory().join("updates/nvidia.ko");
    let modified = real.metadata().and_then(|data| data.modified()).expect("is there");
    let fails_after = |change: &dyn Fn()| {
        let disk = Disk::open(&root).expect("opens");
        let driver = collect(&root, &disk, OLD, Vec::new()).expect("collects");
        let wanted = entries(&root, &driver).expect("describes");
        change();
        let error = make(&root, &driver, OLD, wanted, &root.path(DIRECTORY).join(OLD))
            .expect_err("it changed")
            .to_string();
        assert!(!place.join(format!("{OLD}.new")).exists(), "half a slot is left");
        assert_eq!(
            all(&root).expect("reads").0,
            std::slice::from_ref(&slot),
            "the slot that was there is gone"
        );
        error
    };
    let error = fails_after(&|| write(&root, "/usr/bin/nvidia-smi", "smi of another driver", 0o755));
    assert!(error.contains("nvidia-smi changed while the driver was saved"), "{error}");
    // A module of the same size and time.
    let error = fails_after(&|| {
        fs::write(&real, module(DRIVER, "535.261.99")).expect("writes");
        fs::File::open(&real).and_then(|file| file.set_modified(modified)).expect("sets");
    });
    assert!(error.contains("nvidia.ko changed while the driver was saved"), "{error}");
    let error = fails_after(&|| fs::remove_file(root.path("/usr/bin/nvidia-modprobe")).expect("removes"));
    assert!(error.contains("nvidia-modprobe"), "{error}");
}

#[test]
fn a_module_that_is_a_link_comes_back_as_one() {
    let (_directory, root) = at_temporary();
    write(&root, "/lib/modules/1.0-first/extra/nvidia.ko", "", 0o644);
    fs::write(root.path("/lib/modules/1.0-first/extra/nvidia.ko"), module(DRIVER, OLD)).expect("writes");
    let path = "weak-updates/nvidia.ko";
    modules(&root, &[(path, b"")]);
    let directory = Disk::open(&root).expect("opens").directory().to_owned();
    let real = directory.join(path);
    fs::remove_file(&real).expect("removes");
    symlink("../../1.0-first/extra/nvidia.ko", &real).expect("links");
    let slot = saved(&root);
    fs::remove_file(&real).expect("removes");
    fs::write(&real, module(DRIVER, NEW)).expect("writes");
    fs::write(root.path("/lib/modules/1.0-first/extra/nvidia.ko"), "").expect("writes");
    let placed = put_back(&root, &slot);
    assert_eq!(fs::read_link(&real).expect("is a link"), Path::new("../../1.0-first/extra/nvidia.ko"));
    assert_eq!(fs::metadata(&real).expect("leads there").mode() & 0o7777, 0o644);
    assert_eq!(fs::read(&real).expect("reads"), module(DRIVER, OLD));
    assert_eq!(placed.removed, Default::default());
}

#[test]
fn a_clock_that_was_set_back_does_not_cost_the_newest() {
    let (_directory, root) = at_temporary();
    let slot = saved(&root);
    let at = |version: &str| root.path(DIRECTORY).join(version);
    for (days, version) in [(1, "550.1"), (2, "560.1"), (0, OLD)] {
        fs::create_dir_all(at(version)).expect("creates");
        let text = fs::read_to_string(slot.directory.join("manifest.json")).expect("reads");
        let text = text.replace(&format!("\"version\": \"{OLD}\""), &format!("\"version\": \"{version}\""));
        fs::write(at(version).join("manifest.json"), text).expect("writes");
        let time = UNIX_EPOCH + Duration::from_secs(days * 86400);
        fs::File::open(at(version)).and_then(|file| file.set_modified(time)).expect("sets");
    }
    prune(&root, OLD).expect("removes");
    assert_eq!([OLD, "550.1", "560.1"].map(|version| at(version).exists()), [true, false, true]);
}

#[test]
fn only_what_is_not_there_yet_needs_room() {
    let (_directory, root) = at_temporary();
    let mut slot = saved(&root);
    assert_eq!(slot.shortages(&root).expect("asks"), []);
    for entry in &mut slot.manifest.files {
        if let Entry::File(file) = entry {
            file.size = 1 << 50;
        }
    }
    let short = slot.shortages(&root).expect("asks");
    assert!(matches!(short.as_slice(), [one] if one.needed > 2 << 50 && one.free < 1 << 50), "{short:?}");
}

#[test]
fn the_other_driver_goes_first_only_where_there_is_no_room_for_both() {
    let (_directory, root) = at_temporary();
    let mut slot = saved(&root);
    install(&root, NEW);
    let other = root.path(format!("{LIB}/libcuda.so.{NEW}"));
    // So that it ends before the last step.
    fs::write(root.path(DIRECTORY).join(OLD).join("files/usr/bin/nvidia-smi"), "corrupt").expect("writes");
    let put = |slot: &Slot| {
        let disk = Disk::open(&root).expect("opens");
        put_in_place(&root, slot, &disk, &[NEW.to_owned()].into()).expect_err("is corrupt");
        other.exists()
    };
    assert!(put(&slot));
    for entry in &mut slot.manifest.files {
        if let Entry::File(file) = entry {
            file.size = 1 << 50;
        }
    }
    assert!(!put(&slot));
    let left = tree(&root).into_keys().find(|path| path.ends_with(".nvidia-reload"));
    assert_eq!(left, None, "half a file is left");
}
