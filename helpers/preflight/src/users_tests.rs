// SPDX-License-Identifier: MIT
use engines::Why;
use step::{Root, Verdict};

use super::*;

fn container(name: &str, user: Option<u32>, owner: Owner, auto_remove: bool) -> Container {
    Container {
        engine: if user.is_some() { Kind::Podman } else { Kind::Docker },
        user,
        socket: "/run/docker.sock".into(),
        id: format!("id-of-{name}"),
        name: name.into(),
        paused: false,
        auto_remove,
        has_health_check: false,
        restart: "no".into(),
        stop_timeout: None,
        owner,
        aliases: Vec::new(),
        needs: Vec::new(),
        pid: 0,
        why: vec![Why::Holds],
    }
}

fn survey(containers: Vec<Container>) -> Survey {
    Survey {
        schema: SURVEY_SCHEMA.into(),
        engines: Vec::new(),
        dockerd: Some(7),
        containers,
        unknown: Vec::new(),
        unclear: Vec::new(),
    }
}

#[test]
fn a_users_container_is_no_refusal_and_what_the_run_stops_is_remembered() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = Config::load(&Root::at(directory.path())).expect("has defaults");
    let unit = Owner::Unit { unit: "job.service".into() };
    let of_users = survey(vec![
        container("plain", None, Owner::Engine, false),
        container("quadlet", None, unit, true),
        container("brief", Some(1000), Owner::Engine, true),
        container("long", Some(1000), Owner::Engine, false),
    ]);
    let mut findings = Findings::default();
    let actions = containers(&config, &of_users, &[], &mut findings);
    let objects: Vec<&str> = actions.iter().map(|action| action.object.as_str()).collect();
    assert_eq!(
        objects,
        [
            "docker container plain (id-of-plain)",
            "job.service",
            "podman container long (id-of-long) of user 1000"
        ]
    );
    assert_eq!(findings.verdict().0, Verdict::Ready);
    let drained = to_drain(&config, &of_users);
    let names: Vec<&str> = drained.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["plain", "long"]);

    let of_root = survey(vec![container("brief", None, Owner::Engine, true)]);
    let mut findings = Findings::default();
    containers(&config, &of_root, &[], &mut findings);
    assert_eq!(findings.verdict().0, Verdict::Refused);
}

#[test]
fn what_is_not_known_of_a_container_is_said_and_waited_for() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = Config::load(&Root::at(directory.path())).expect("has defaults");
    let unclear = vec!["container main of pod ml/x: its OCI bundle is not found".into()];
    let survey = Survey { unclear, ..survey(Vec::new()) };
    let mut findings = Findings::default();
    containers(&config, &survey, &[], &mut findings);
    let (verdict, _, warnings) = findings.verdict();
    assert_eq!(verdict, Verdict::Ready);
    assert!(warnings[0].to_string().contains("pod ml/x"), "{warnings:?}");
    assert_eq!(unknown(&survey, &Scan::default(), None), survey.unclear);
}

#[test]
fn a_process_of_a_container_that_no_engine_of_roots_has_is_looked_at_again() {
    let holder = |group: &str| Holder {
        pid: 5,
        start_ticks: 1,
        since: None,
        uid: 0,
        user: None,
        comm: "job".into(),
        command: Vec::new(),
        state: 'S',
        devices: Vec::new(),
        owner: holders::owner(format!("0::{group}\n").as_bytes()),
        screen: false,
        gpu_memory: None,
    };
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let known = Container { id: id.into(), ..container("job", None, Owner::Engine, false) };
    let of_docker = format!("/system.slice/docker-{id}.scope");
    let of_user =
        format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container");
    for (group, containers, expected) in [
        (&of_docker, vec![], true),
        (&of_docker, vec![known], false),
        // Claims of users are no reason to ask root's engines.
        (&of_user, vec![], false),
        (&"/system.slice/job.service".to_owned(), vec![], false),
    ] {
        let scan = Scan { holders: vec![holder(group)], ..Scan::default() };
        assert_eq!(is_unanswered(&survey(containers), &scan), expected, "{group}");
    }
}
