// SPDX-License-Identifier: MIT
//! The loaded driver's libraries before those on disk, and back.

use super::*;

const CONF: &str = "/etc/ld.so.conf.d/00-nvidia-reload.conf";
const LIB32: &str = "/usr/lib/i386-linux-gnu";

fn library(root: &Root, directory: &str, name: &str, version: &str, class: char) {
    write(root, &format!("{directory}/{name}.so.{version}"), &format!("\x7fELF{class} {name}"), 0o644);
    link(root, &format!("{directory}/{name}.so.1"), &format!("{name}.so.{version}"));
    link(root, &format!("{directory}/{name}.so"), &format!("{name}.so.1"));
}

/// A machine with driver `OLD` for both word sizes in a slot, and `NEW` on disk.
fn mismatched(root: &Root) -> Slot {
    write(root, "/etc/ld.so.conf", &format!("include /etc/ld.so.conf.d/*.conf\n{LIB}\n{LIB32}\n"), 0o644);
    fs::create_dir_all(root.path("/etc/ld.so.conf.d")).expect("creates");
    for name in ["libcuda", "libnvidia-ml"] {
        library(root, LIB, name, OLD, '\u{2}');
        library(root, LIB32, name, OLD, '\u{1}');
    }
    write(root, &format!("/lib/firmware/nvidia/{OLD}/gsp_tu10x.bin"), OLD, 0o644);
    let slot = saved(root);
    for (directory, class) in [(LIB, '\u{2}'), (LIB32, '\u{1}')] {
        for name in ["libcuda", "libnvidia-ml"] {
            fs::remove_file(root.path(format!("{directory}/{name}.so.{OLD}"))).expect("removes");
            library(root, directory, name, NEW, class);
        }
    }
    fs::remove_dir_all(root.path(format!("/lib/firmware/nvidia/{OLD}"))).expect("removes");
    slot
}

fn text(root: &Root, path: &str) -> Option<String> {
    fs::read_to_string(root.path(path)).ok()
}

#[test]
fn both_word_sizes_and_the_firmware_are_there_and_go_without_a_trace() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let slot = mismatched(&root);
    assert_eq!(lacks(&root, &slot).expect("looks"), None);
    let manifest = |gone: &str| {
        let files = slot.manifest.files.iter().filter(|entry| !entry.path().contains(gone)).cloned();
        Slot { manifest: Manifest { files: files.collect(), ..slot.manifest.clone() }, ..slot.clone() }
    };
    for (gone, expected) in [("libcuda", true), ("libnvidia-ml", true), ("smi", false)] {
        assert_eq!(lacks(&root, &manifest(gone)).expect("looks").is_some(), expected, "without {gone}");
    }
    let before = tree(&root);
    let healed = heal(&root, &slot, Some(NEW.into())).expect("heals");
    assert_eq!(Healed::read(&root).expect("reads").as_ref(), Some(&healed));
    assert_eq!((healed.version.as_str(), healed.instead_of.as_deref()), (OLD, Some(NEW)));
    for folder in ["32", "64"] {
        for name in [format!("libcuda.so.{OLD}"), "libcuda.so.1".into(), "libcuda.so".into()] {
            let path = root.path(HEALED).join(folder).join(name);
            assert!(fs::read_to_string(&path).is_ok_and(|text| text.ends_with("libcuda")), "{path:?}");
        }
    }
    let conf = text(&root, CONF).expect("is there");
    assert!(conf.contains(&format!("{HEALED}/32\n{HEALED}/64\n")), "{conf}");
    assert_eq!(text(&root, &format!("/lib/firmware/nvidia/{OLD}/gsp_tu10x.bin")).as_deref(), Some(OLD));
    // What is on disk is the other driver all the same.
    let disk = Disk::open(&root).expect("opens");
    assert_eq!(on_disk(&root, &disk, None).expect("looks"), [NEW.to_owned()].into());
    // A second time changes nothing.
    heal(&root, &slot, Some(NEW.into())).expect("heals");
    assert_eq!(text(&root, CONF), Some(conf));
    assert!(end(&root).expect("ends"));
    assert_eq!(tree(&root), before);
    assert!(!root.path(HEALED).exists());
    assert_eq!(Healed::read(&root).expect("reads"), None);
    assert!(!end(&root).expect("ends"), "there is nothing left");
}

#[test]
fn whatever_a_power_cut_left_is_ended() {
    // What is there after each of the acts, in their order.
    for done in 0..4 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let slot = mismatched(&root);
        let before = tree(&root);
        heal(&root, &slot, Some(NEW.into())).expect("heals");
        if done < 3 {
            fs::remove_file(root.path(CONF)).expect("removes");
        }
        if done < 2 {
            fs::remove_dir_all(root.path(format!("/lib/firmware/nvidia/{OLD}"))).expect("removes");
        }
        if done < 1 {
            fs::remove_dir_all(root.path(HEALED)).expect("removes");
        }
        assert!(end(&root).expect("ends"), "{done}");
        assert_eq!(tree(&root), before, "{done}");
        assert_eq!(Healed::read(&root).expect("reads"), None, "{done}");
    }
    // The linker's file alone, of which nothing is known.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    write(&root, CONF, "/nowhere\n", 0o644);
    assert!(end(&root).expect("ends"));
    assert!(!root.path(CONF).exists());
}

#[test]
fn a_specification_that_names_our_folder_becomes_what_it_was() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let slot = mismatched(&root);
    for (path, text) in [("/etc/cdi/a.yaml", "a"), ("/etc/cdi/b.yaml", "b"), ("/etc/cdi/c.yaml", "c")] {
        write(&root, path, text, 0o640);
    }
    let mut healed = heal(&root, &slot, Some(NEW.into())).expect("heals");
    let paths = ["a", "b", "c"].map(|name| format!("/etc/cdi/{name}.yaml")).to_vec();
    healed.save_cdi(&root, paths).expect("saves");
    fs::write(root.path("/etc/cdi/a.yaml"), format!("{HEALED}/64/libcuda.so.1")).expect("writes");
    // Written by somebody else meanwhile.
    fs::write(root.path("/etc/cdi/b.yaml"), "news").expect("writes");
    fs::remove_file(root.path("/etc/cdi/c.yaml")).expect("removes");
    end(&root).expect("ends");
    assert_eq!(text(&root, "/etc/cdi/a.yaml").as_deref(), Some("a"));
    assert_eq!(text(&root, "/etc/cdi/b.yaml").as_deref(), Some("news"));
    assert_eq!(text(&root, "/etc/cdi/c.yaml"), None);
}

#[test]
fn what_a_specification_was_is_not_lost_where_it_cannot_be_put_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let slot = mismatched(&root);
    write(&root, "/etc/cdi/a.yaml", "a", 0o640);
    let mut healed = heal(&root, &slot, Some(NEW.into())).expect("heals");
    healed.save_cdi(&root, vec!["/etc/cdi/a.yaml".into()]).expect("saves");
    fs::write(root.path("/etc/cdi/a.yaml"), format!("{HEALED}/64/libcuda.so.1")).expect("writes");
    let (saved, away) = (root.path(HEALED).join("cdi/0"), root.path(HEALED).join("cdi/away"));
    fs::rename(&saved, &away).expect("is away");
    end(&root).expect_err("it cannot be put back");
    assert!(Healed::read(&root).expect("reads").is_some());
    fs::rename(&away, &saved).expect("is there again");
    assert!(end(&root).expect("ends"));
    assert_eq!(text(&root, "/etc/cdi/a.yaml").as_deref(), Some("a"));
}

#[test]
fn the_slot_in_use_is_not_pruned() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let slot = mismatched(&root);
    heal(&root, &slot, Some(NEW.into())).expect("heals");
    let place = |version: &str| root.path(DIRECTORY).join(version);
    for version in ["540.1", "550.1", "560.1"] {
        fs::create_dir_all(place(version)).expect("creates");
        let manifest = fs::read_to_string(place(OLD).join("manifest.json")).expect("reads");
        fs::write(place(version).join("manifest.json"), manifest.replace(OLD, version)).expect("writes");
    }
    crate::save::prune(&root, "560.1").expect("prunes");
    assert!(place(OLD).exists() && place("560.1").exists());
}

#[test]
fn firmware_of_another_name_is_none_of_ours() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let slot = mismatched(&root);
    let mut healed = heal(&root, &slot, None).expect("heals");
    let others =
        ["/etc/passwd", &format!("/lib/firmware/nvidia/{OLD}/../../x"), "/lib/firmware/nvidia/550/x"];
    for path in others {
        write(&root, path, "precious", 0o644);
    }
    healed.firmware.extend(others.map(str::to_owned));
    let state = root.path("/var/lib/nvidia-reload/healed.json");
    fs::write(state, serde_json::to_string(&healed).expect("encodes")).expect("writes");
    end(&root).expect("ends");
    for path in ["/etc/passwd", "/lib/firmware/x", "/lib/firmware/nvidia/550/x"] {
        assert_eq!(text(&root, path).as_deref(), Some("precious"), "{path}");
    }
}
