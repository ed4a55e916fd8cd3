// SPDX-License-Identifier: MIT
use super::super::gallery::{busy_server, drained_for_a_user, now};
use super::super::text::width;
use super::*;

#[test]
fn a_busy_server_at_a_glance() {
    let style = Style { width: Some(100), ..Style::PLAIN };
    let page = status(&busy_server(), style, now());
    assert!(!page.contains('\x1b'));
    insta::assert_snapshot!(page);
}

#[test]
fn where_no_reload_helps_none_is_advised() {
    let mut here = busy_server();
    here.request = None;
    here.driver.out_of_reach = Some(step::Reason::new("there is none for this kernel", "install it"));
    let page = status(&here, Style::PLAIN, now());
    assert!(page.contains("there is none for this kernel\n") && page.contains("install it\n"), "{page}");
    assert!(!page.contains("`nvidia-reload reload`"), "{page}");
}

#[test]
fn a_file_gets_the_whole_command_lines() {
    let page = status(&busy_server(), Style::PLAIN, now());
    assert!(page.contains("--data /srv/data/imagenet --resume"));
}

#[test]
fn the_table_fits_narrow_terminals() {
    let style = Style { width: Some(80), ..Style::PLAIN };
    let page = status(&busy_server(), style, now());
    let table: Vec<&str> = page.lines().skip_while(|line| !line.starts_with("OWNER")).take(5).collect();
    assert!(table.iter().all(|line| width(line) <= 80), "{page}");
}

#[test]
fn a_user_is_told_what_only_root_sees() {
    let style = Style { width: Some(60), ..Style::PLAIN };
    insta::assert_snapshot!(status(&drained_for_a_user(), style, now()));
}

#[test]
fn owners_have_names() {
    let pod = |namespace: Option<&str>| {
        Owner::Container(Container {
            engine: Engine::Containerd,
            id: "0123456789abcdef".into(),
            uid: None,
            unit: None,
            group: String::new(),
            pod: Some(holders::Pod {
                uid: "u-1".into(),
                name: Some("train-0".into()),
                namespace: namespace.map(Into::into),
            }),
        })
    };
    let podman = |uid, unit: Option<&str>| {
        Owner::Container(Container {
            engine: Engine::Podman,
            id: "0123456789abcdef".into(),
            uid,
            unit: unit.map(Into::into),
            group: String::new(),
            pod: None,
        })
    };
    assert_eq!(owner(&pod(Some("ml"))), "pod ml/train-0");
    assert_eq!(owner(&podman(Some(1000), None)), "podman 0123456789ab of user 1000");
    assert_eq!(owner(&podman(None, Some("job.service"))), "podman 0123456789ab (job.service)");
    assert_eq!(owner(&Owner::UserUnit { uid: 7, unit: "a.service".into() }), "a.service of user 7");
    assert_eq!(owner(&Owner::Session { id: "3".into(), uid: None }), "session 3");
}

#[test]
fn many_gpus_take_little_room() {
    let device = |kind, name: &str, via| Device {
        rdev: None,
        kind,
        name: name.into(),
        module: "nvidia".into(),
        via,
        count: 1,
        path: String::new(),
    };
    let mut held = vec![device(Kind::Ctl, "nvidiactl", Via::Fd), device(Kind::Uvm, "nvidia-uvm", Via::Map)];
    for number in [7, 0, 1, 2, 2] {
        held.push(device(Kind::Gpu, &format!("nvidia{number}"), Via::Fd));
    }
    held.push(device(Kind::Ctl, "nvidiactl", Via::Map));
    held.push(device(Kind::DrmRender, "renderD128", Via::ThreadFd));
    assert_eq!(devices(&held), "nvidia0-2 nvidia7 ctl uvm(map) renderD128(thread)");
}
