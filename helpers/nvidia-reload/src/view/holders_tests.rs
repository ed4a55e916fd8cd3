// SPDX-License-Identifier: MIT
use holders::{Container, Pod};

use super::super::gallery::busy_server;
use super::super::text::width;
use super::*;

#[test]
fn every_process_has_a_line_where_every_detail_is_wanted() {
    let style = Style { width: Some(80), verbose: true, ..Style::PLAIN };
    let table = holders(&busy_server(), style);
    assert!(table.lines().all(|line| width(line) <= 80), "{table}");
    insta::assert_snapshot!(table);
}

#[test]
fn a_container_has_one_line_for_all_its_processes() {
    let mut status = busy_server();
    let mut second = status.holders[1].clone();
    second.pid += 1;
    status.holders.push(second);
    let table = holders(&status, Style::PLAIN);
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("docker train ")).collect();
    assert_eq!(lines.len(), 1, "{table}");
    assert!(lines[0].contains("23.6 GiB") && lines[0].contains("2 processes: python3"), "{table}");
}

#[test]
fn what_is_not_known_is_not_called_not_loaded() {
    let mut status = busy_server();
    status.modules.clear();
    let text = holders(&status, Style::PLAIN);
    assert!(text.contains("not known what holds") && !text.contains("not loaded"), "{text}");
    // Its version cannot be read, and the module is there.
    status.driver.loaded = None;
    assert!(holders(&status, Style::PLAIN).contains("not known what holds"));
    status.driver.present = false;
    assert!(holders(&status, Style::PLAIN).contains("not loaded"));
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
            pod: Some(Pod {
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
    let status = busy_server();
    assert_eq!(owner(&status, &pod(Some("ml"))), "pod ml/train-0");
    assert_eq!(owner(&status, &podman(Some(1000), None)), "podman 0123456789ab of user 1000");
    assert_eq!(owner(&status, &podman(None, Some("job.service"))), "podman 0123456789ab (job.service)");
    assert_eq!(owner(&status, &Owner::UserUnit { uid: 7, unit: "a.service".into() }), "a.service of user 7");
    assert_eq!(owner(&status, &Owner::Session { id: "3".into(), uid: None }), "session 3");
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
