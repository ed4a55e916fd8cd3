// SPDX-License-Identifier: MIT
use super::*;
use proptest::prelude::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "8c1d3f52-6a4e-4f0b-9d57-1f2e3a4b5c6d";

fn of(path: &str) -> Owner {
    owner(format!("0::{path}\n").as_bytes())
}

fn container(path: &str) -> Container {
    match of(&path.replace("ID", ID).replace("POD_", &POD.replace('-', "_")).replace("POD", POD)) {
        Owner::Container(container) => container,
        other => panic!("{path}: {other:?}"),
    }
}

fn system(unit: &str, slice: &str) -> Owner {
    Owner::SystemUnit { unit: unit.to_owned(), slice: slice.to_owned() }
}

#[test]
fn engines_by_their_directories() {
    for (path, engine) in [
        ("/system.slice/docker-ID.scope", Engine::Docker),
        ("/docker/ID", Engine::Docker),
        ("/acme/ID", Engine::Unknown),
        ("/machine.slice/libpod-ID.scope/container", Engine::Podman),
        ("/libpod_parent/libpod-ID", Engine::Podman),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope", Engine::Docker),
        ("/kubepods.slice/kubepods-podPOD_.slice/cri-containerd-ID.scope", Engine::Containerd),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podPOD_.slice/crio-ID.scope",
            Engine::Crio,
        ),
        ("/kubepods/burstable/podPOD/ID", Engine::Unknown),
        ("/system.slice/nerdctl-ID.scope", Engine::Containerd),
        // A Kubernetes inside a Docker container: the host can only ask Docker.
        (
            "/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/cri-containerd-ID.scope",
            Engine::Docker,
        ),
    ] {
        let found = container(path);
        assert_eq!((found.engine, found.id.as_str()), (engine, ID), "{path}");
    }
}

#[test]
fn rootless_and_service_containers() {
    let found =
        container("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container");
    assert_eq!((found.uid, found.unit), (Some(1000), None));
    let found = container("/system.slice/render.service/libpod-payload-ID");
    assert_eq!((found.uid, found.unit.as_deref()), (None, Some("render.service")));
    let found = container("/user.slice/user-7.slice/user@7.service/app.slice/x.service/libpod-payload-ID");
    assert_eq!((found.uid, found.unit.as_deref()), (Some(7), Some("x.service")));
}

#[test]
fn pods() {
    for path in [
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
        "/kubepods/besteffort/podPOD/ID",
    ] {
        assert_eq!(container(path).pod.map(|pod| pod.uid).as_deref(), Some(POD), "{path}");
    }
    assert_eq!(container("/podcast/ID").pod, None);
}

#[test]
fn machines() {
    assert_eq!(container("/lxc.payload.web-1/system.slice/x.service").id, "web-1");
    assert_eq!(container("/lxc/web/init.scope").id, "web");
    let nspawn = container(r"/machine.slice/machine-my\x2dbox.scope/payload/system.slice/x.service");
    assert_eq!((nspawn.engine, nspawn.id.as_str()), (Engine::Machine, "my-box"));
    let nspawn = container("/machine.slice/systemd-nspawn@box.service/payload/init.scope");
    assert_eq!(nspawn.unit.as_deref(), Some("systemd-nspawn@box.service"));
}

#[test]
fn monitors_are_not_inside() {
    assert_eq!(
        of(&format!("/machine.slice/libpod-conmon-{ID}.scope")),
        system(&format!("libpod-conmon-{ID}.scope"), "machine.slice")
    );
}

#[test]
fn units_sessions_users() {
    assert_eq!(of("/system.slice/x.service"), system("x.service", "system.slice"));
    assert_eq!(of("/a.slice/a-b.slice/x@1.service/sub/group"), system("x@1.service", "a-b.slice"));
    assert_eq!(of(r"/system.slice/a\x2db.service"), system(r"a\x2db.service", "system.slice"));
    assert_eq!(of("/system.slice/_cpu.service"), system("cpu.service", "system.slice"));
    assert_eq!(of("/init.scope"), system("init.scope", "-.slice"));
    assert_eq!(
        of("/user.slice/user-1000.slice/session-3.scope"),
        Owner::Session { id: "3".to_owned(), uid: Some(1000) }
    );
    assert_eq!(
        of("/user.slice/user-1000.slice/user@1000.service/app.slice/jup.service"),
        Owner::UserUnit { uid: 1000, unit: "jup.service".to_owned() }
    );
    assert_eq!(
        of("/user.slice/user-1000.slice/user@1000.service/init.scope"),
        Owner::UserUnit { uid: 1000, unit: "init.scope".to_owned() },
        "every group below is the user's to enter"
    );
    assert_eq!(
        of("/user.slice/user-1000.slice/user@1000.service"),
        Owner::UserUnit { uid: 1000, unit: "init.scope".to_owned() }
    );
    assert_eq!(of("/"), Owner::Process);
    assert_eq!(of("/cron/weird"), Owner::Process);
}

#[test]
fn below_a_users_manager_names_are_that_users_claims() {
    let below = |rest: &str| format!("/user.slice/user-7.slice/user@7.service/{}", rest.replace("ID", ID));
    // No machine and no job of root's runs there: it is a scope of the user's, or a group in a service.
    let unit = |unit: &str| Owner::UserUnit { uid: 7, unit: unit.to_owned() };
    for (rest, found) in [
        ("machine-x.scope", unit("machine-x.scope")),
        ("app.slice/x.service/lxc.payload.web", unit("x.service")),
        ("app.slice/x.service/lxc/web", unit("x.service")),
        ("x.scope/slurm/uid_7/job_1/step_0", unit("x.scope")),
        ("docker.service", unit("docker.service")),
        ("app.slice/nothing/known", unit("init.scope")),
    ] {
        assert_eq!(of(&below(rest)), found, "{rest}");
    }
    for name in ["docker-ID.scope", "cri-containerd-ID.scope", "crio-ID.scope", "x.service/libpod-ID", "a/ID"]
    {
        let found = container(&below(name));
        assert_eq!((found.uid, found.unit, found.id.as_str()), (Some(7), None, ID), "{name}");
    }
    // Not the user's own.
    let found = container("/user.slice/user-7.slice/session-3.scope/docker-ID.scope");
    assert_eq!(found.uid, None);
    let found = container("/system.slice/user@7.service/docker-ID.scope");
    assert_eq!(found.uid, None);
    // Where root's Docker made a group in another hierarchy, that counts.
    let both = format!("4:memory:/docker/{ID}\n1:name=systemd:{}\n", below("libpod-ID.scope"));
    let Owner::Container(found) = owner(both.as_bytes()) else { panic!("a container") };
    assert_eq!((found.engine, found.uid, found.group), (Engine::Docker, None, format!("/docker/{ID}")));
}

#[test]
fn below_a_directory_that_is_not_roots_a_name_says_nothing() {
    let users = |path: &str| {
        let text = format!("0::{}\n", path.replace("ID", ID));
        owner_where(text.as_bytes(), |group| !group.starts_with("/system.slice/x.service"))
    };
    let unit = system("x.service", "system.slice");
    assert_eq!(users("/system.slice/x.service/docker-ID.scope"), unit);
    assert_eq!(users("/system.slice/x.service/slurm/job_7/step_0"), unit);
    assert_eq!(users("/system.slice/x.service/machine-x.scope"), unit);
    assert!(matches!(users("/system.slice/y.service/libpod-payload-ID"), Owner::Container(_)));
    // The container's own directory may be its user's: its name is still root's.
    let text = format!("0::/system.slice/docker-{ID}.scope/init.scope\n");
    let own = owner_where(text.as_bytes(), |group| !group.contains("docker-"));
    assert!(matches!(own, Owner::Container(_)), "{own:?}");
}

#[test]
fn the_group_that_carries_the_id() {
    let text = format!("0::/machine.slice/libpod-{ID}.scope/container\n");
    let scope = format!("/machine.slice/libpod-{ID}.scope");
    assert_eq!(groups_of(text.as_bytes(), ID), [scope.as_str()]);
    let Owner::Container(found) = owner(text.as_bytes()) else { panic!("a container") };
    assert_eq!(found.group, scope);
    assert!(groups_of(b"0::/system.slice/x.service\n", ID).is_empty());
}

#[test]
fn a_group_that_is_gone_still_names_its_unit() {
    assert_eq!(of("/system.slice/x.service (deleted)"), system("x.service", "system.slice"));
}

#[test]
fn slurm() {
    let step = |job: &str, step: &str| Owner::SlurmStep { job: job.into(), step: step.into() };
    assert_eq!(of("/system.slice/slurmstepd.scope/job_7/step_0/user/task_0"), step("7", "0"));
    assert_eq!(
        of("/system.slice/node1_slurmstepd.scope/job_8/step_extern/user/task_special"),
        step("8", "extern")
    );
    let old = b"11:freezer:/slurm/uid_1000/job_5/step_batch\n1:name=systemd:/system.slice/slurmd.service\n";
    assert_eq!(owner(old), step("5", "batch"));
    assert_eq!(of("/print.slice/job_7/step_0"), Owner::Process);
}

#[test]
fn old_and_hybrid_layouts() {
    let old = format!("12:devices:/docker/{ID}\n1:name=systemd:/docker/{ID}\n");
    assert!(matches!(owner(old.as_bytes()), Owner::Container(_)));
    let engine_beside_systemd =
        format!("4:memory:/docker/{ID}\n1:name=systemd:/system.slice/docker.service\n");
    assert!(matches!(owner(engine_beside_systemd.as_bytes()), Owner::Container(_)));
    for hybrid in [
        "5:cpu,cpuacct:/\n1:name=systemd:/system.slice/x.service\n0::/system.slice/x.service\n",
        "0::/\n1:name=systemd:/system.slice/x.service\n",
        "1:name=systemd:/system.slice/x.service\n0::/\n",
    ] {
        assert_eq!(owner(hybrid.as_bytes()), system("x.service", "system.slice"), "{hybrid}");
    }
}

proptest! {
    #[test]
    fn any_bytes_have_an_owner(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        owner(&text);
    }

    #[test]
    fn any_path_has_an_owner(path in r"(/(_?[a-z@\\-]{0,8}(\.slice|\.service|\.scope|-pod_)?|job_1|step_2|user@1\.service|lxc|machine-\\x2.\.scope)){0,6}") {
        of(&path);
    }
}
