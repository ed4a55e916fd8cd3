// SPDX-License-Identifier: MIT
//! What users' processes, control groups and names can have these readers read. See the crate `fuzz`.

use std::fs;

use step::Root;

use crate::cgroup::{groups_of, owner, owner_where};
use crate::model::{Container, Engine, Owner, Pod};
use crate::process::{Stat, arguments, field_of, user, user_name};
use crate::text::{escape, unescape};
use crate::{display, maps, pod, unseen};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// An escape is at most ten bytes for three.
const ESCAPED: usize = 4;

fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[test]
fn proc_cgroup() {
    fuzz::run(HERE, "proc-cgroup", |text| {
        let mut found = owner(text);
        let group = match &mut found {
            Owner::Container(container) => std::mem::take(&mut container.group),
            _ => String::new(),
        };
        // All but the path, which is to be compared.
        fuzz::assert_plain(&found);
        // As JSON, an escaped byte has two backslashes.
        fuzz::assert_at_most(8 * text.len() + 512, &found);
        let lossy = String::from_utf8_lossy(text);
        match &found {
            Owner::Container(container) => {
                let named = matches!(container.engine, Engine::Lxc | Engine::Machine);
                assert!(named || is_id(&container.id), "{container:?}");
                let uid =
                    container.uid.map(|uid| format!("/user.slice/user-{uid}.slice/user@{uid}.service/"));
                assert!(uid.is_none_or(|above| group.starts_with(&above) && !named), "{container:?}");
            }
            Owner::UserUnit { uid, .. } => assert!(lossy.contains(&format!("user@{uid}.service"))),
            Owner::SystemUnit { unit, .. } => assert!(lossy.contains(unit.as_str())),
            _ => {}
        }
        // Where no directory is root's, a name below the first stands for nothing of root's.
        match owner_where(text, |_| false) {
            Owner::SlurmStep { .. } => panic!("a job"),
            Owner::Container(container) => {
                assert!(container.uid.is_some() || container.group.matches('/').count() == 1, "{container:?}")
            }
            _ => {}
        }
        let id = "0123456789abcdef".repeat(4);
        assert!(groups_of(text, &id).iter().all(|group| group.contains(&id)));
    });
}

/// Whatever a user makes below the directory of that user's manager, it is of that user.
#[test]
fn user_cgroup() {
    fuzz::run(HERE, "user-cgroup", |below| {
        // The kernel takes no line end in the name of a group.
        let below: Vec<u8> = below.iter().copied().filter(|byte| *byte != b'\n').collect();
        for above in [&b"0::"[..], b"1:name=systemd:", b"4:memory:/\n0::"] {
            let text = [above, b"/user.slice/user-7.slice/user@7.service/", &below, b"\n"].concat();
            match owner(&text) {
                Owner::UserUnit { uid: 7, .. } => {}
                Owner::Container(Container { uid: Some(7), engine, .. }) => {
                    assert!(!matches!(engine, Engine::Lxc | Engine::Machine));
                }
                // A path that is not UTF-8 is no unit's, and no container's.
                Owner::Process if std::str::from_utf8(&text).is_err() => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn proc_stat() {
    fuzz::run(HERE, "proc-stat", |text| {
        if let Some(stat) = Stat::parse(text) {
            fuzz::assert_plain(&stat.comm);
            assert!(stat.comm.len() <= ESCAPED * text.len());
        }
    });
}

/// A name is of 15 bytes at most and takes nothing from what stands around it.
#[test]
fn comm() {
    fuzz::run(HERE, "comm", |name| {
        let name: Vec<u8> = name.iter().copied().filter(|byte| *byte != 0).take(15).collect();
        let stat = [b"41 (", &name[..], b") S 40 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 55 0 0\n"].concat();
        let stat = Stat::parse(&stat).expect("is read");
        assert_eq!((stat.state, stat.ppid, stat.start_ticks), ('S', 40, 55));
        assert_eq!(unescape(&stat.comm), Some(name.clone()));
        // The kernel writes a line end and a backslash in `status` as escapes.
        let escaped = name.iter().flat_map(|byte| match byte {
            b'\n' => b"\\n".to_vec(),
            b'\\' => b"\\\\".to_vec(),
            byte => vec![*byte],
        });
        let status: Vec<u8> = b"Name:\t".iter().copied().chain(escaped).collect();
        assert_eq!(user(&[&status, &b"\nUmask:\t0022\nUid:\t7\t7\t7\t7\n"[..]].concat()), Some(7));
        // In the list of a card it stands as it is.
        let text =
            [b"command tgid dev master a uid magic\n", &vec![b' '; 20 - name.len()][..], &name].concat();
        for (row, masters) in [
            (&b"  4000   0   n    y  1000          1\n"[..], &[][..]),
            (b"  4000   0   y    y  1000          1\n", &[4000]),
        ] {
            let text =
                [&text[..], row, b"      systemd-logind   801   0   y    y     0          0\n"].concat();
            let found = display::masters(&String::from_utf8_lossy(&text));
            assert_eq!(found, [masters, &[801]].concat(), "{:?}", name.escape_ascii().to_string());
        }
    });
}

#[test]
fn proc_status() {
    fuzz::run(HERE, "proc-status", |text| {
        if let Some(found) = user(text) {
            assert!(String::from_utf8_lossy(text).contains(&found.to_string()) || text.contains(&b'+'));
        }
        assert!(
            field_of(text, "CapEff").is_none_or(|value| value.len() <= text.len() && !value.contains('\n'))
        );
    });
}

#[test]
fn proc_cmdline() {
    fuzz::run(HERE, "proc-cmdline", |bytes| {
        // As much as is read of it.
        let found = arguments(&bytes[..bytes.len().min(1 << 10)]);
        fuzz::assert_plain(&found);
        assert!(found.len() <= 65 && found.iter().map(String::len).sum::<usize>() <= ESCAPED << 10);
    });
}

#[test]
fn proc_maps() {
    fuzz::run(HERE, "proc-maps", |text| {
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(found) = maps::Line::parse(line) {
                let is_hex = |byte: u8| byte == b'-' || byte.is_ascii_hexdigit();
                assert!(
                    found.range_name().is_none_or(|range| range.len() <= 33 && range.bytes().all(is_hex))
                );
                assert!(line.trim_ascii_end().ends_with(found.path.trim_ascii_end()));
            }
        }
    });
}

#[test]
fn drm_clients() {
    fuzz::run(HERE, "drm-clients", |text| {
        let text = String::from_utf8_lossy(text);
        assert!(display::masters(&text).len() <= text.lines().count());
    });
}

#[test]
fn mountinfo() {
    fuzz::run(HERE, "mountinfo", |text| {
        let text = String::from_utf8_lossy(text);
        if let Some(option) = unseen::proc_option(&text) {
            assert!(text.contains(" /proc ") && (option.starts_with("hidepid=") || option == "subset=pid"));
        }
    });
}

#[test]
fn passwd() {
    fuzz::run(HERE, "passwd", |text| {
        let name = user_name(&String::from_utf8_lossy(text), 1000);
        fuzz::assert_plain(&name);
        graph::in_devices(text);
    });
}

#[test]
fn fdinfo() {
    fuzz::run(HERE, "fdinfo", |text| {
        for field in ["scm_fds", "UserFiles", "exp_name"] {
            assert!(field_of(text, field).is_none_or(|value| value.trim() == value && !value.contains('\n')));
        }
    });
}

#[test]
fn pod_bundle() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let bundle = root.path("/run/containerd/io.containerd.runtime.v2.task/k8s.io/c0ffee");
    fs::create_dir_all(&bundle).expect("created");
    fuzz::run(HERE, "pod-bundle", |text| {
        fs::write(bundle.join("config.json"), text).expect("written");
        let pod = Some(Pod { uid: "u".into(), name: None, namespace: None });
        let (engine, id, group) = (Engine::Unknown, "c0ffee".to_owned(), String::new());
        let mut found = Owner::Container(Container { engine, id, uid: None, unit: None, group, pod });
        pod::complete(&root, &mut found);
        fuzz::assert_plain(&found);
        fuzz::assert_at_most(8 * text.len() + 512, &found);
    });
}

#[test]
fn bytes() {
    fuzz::run(HERE, "bytes", |bytes| {
        let text = escape(bytes);
        fuzz::assert_plain(&text);
        assert!(text.len() <= ESCAPED * bytes.len());
        assert_eq!(unescape(&text).as_deref(), Some(bytes));
    });
}
