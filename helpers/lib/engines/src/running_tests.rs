// SPDX-License-Identifier: MIT
use std::os::unix::net::UnixListener;

use super::*;
use crate::find::{find, of_pods, podman_listens};
use crate::{Kind, Presence};

pub(crate) fn tree() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    for path in ["/proc", "/run/podman"] {
        fs::create_dir_all(root.path(path)).expect("creates");
    }
    (directory, root)
}

pub(crate) fn process(root: &Root, pid: u32, comm: &str, cmdline: &[u8]) {
    let directory = root.path(format!("/proc/{pid}"));
    fs::create_dir_all(directory.join("task/1")).expect("creates");
    fs::write(directory.join("task/1/children"), "").expect("writes");
    fs::write(directory.join("comm"), format!("{comm}\n")).expect("writes");
    fs::write(directory.join("cmdline"), cmdline).expect("writes");
    of_user(root, pid, 0);
    let program = String::from_utf8_lossy(cmdline.split(|byte| *byte == 0).next().unwrap_or_default());
    runs(root, pid, &program);
}

fn of_user(root: &Root, pid: u32, uid: u32) {
    let status = format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
    fs::write(root.path(format!("/proc/{pid}/status")), status).expect("writes");
}

fn runs(root: &Root, pid: u32, program: &str) {
    let exe = root.path(format!("/proc/{pid}/exe"));
    let _ = fs::remove_file(&exe);
    std::os::unix::fs::symlink(program, exe).expect("links");
}

#[test]
fn what_a_user_calls_a_process_is_nothing() {
    let (_directory, root) = tree();
    let shim = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-id\0p\0-address\0/run/c.sock\0";
    let moby = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-id\0d\0";
    let all: [(u32, &str, &[u8]); 4] = [
        (7, "containerd-shim", shim),
        (8, "containerd-shim", moby),
        (9, "kubelet", b"/usr/bin/kubelet\0"),
        (10, "dockerd", b"/usr/bin/dockerd\0"),
    ];
    for (pid, comm, cmdline) in all {
        process(&root, pid, comm, cmdline);
        fs::write(root.path(format!("/proc/{pid}/task/1/children")), "11 ").expect("writes");
        let cgroup = "0::/system.slice/kubelet.service\n";
        fs::write(root.path(format!("/proc/{pid}/cgroup")), cgroup).expect("writes");
    }
    let seen = || {
        let running = Running::look(&root).expect("looks");
        let kubelet = running.kubelet().map(str::to_owned);
        (running.dockerd.is_some(), running.has_dockers(), running.containerds().len(), kubelet)
    };
    assert_eq!(seen(), (true, true, 1, Some("kubelet.service".to_owned())));
    assert_eq!(shims(&root, "d").expect("looks").len(), 1);
    let nothing = (false, false, 0, None);
    for (pid, ..) in all {
        of_user(&root, pid, 1000);
    }
    assert_eq!(seen(), nothing);
    assert!(shims(&root, "d").expect("looks").is_empty());
    for (pid, ..) in all {
        // A set-uid program by a link of that name.
        let status = "Uid:\t1000\t0\t0\t0\n";
        fs::write(root.path(format!("/proc/{pid}/status")), status).expect("writes");
    }
    assert_eq!(seen(), nothing);
    for (pid, ..) in all {
        of_user(&root, pid, 0);
        runs(&root, pid, "/bin/sh");
    }
    assert_eq!(seen(), nothing, "a script of root's");
}

fn docker(root: &Root) -> Presence {
    find(root, Kind::Docker, None, &Running::look(root).expect("looks")).presence
}

#[test]
fn a_listening_socket_alone_starts_no_daemon() {
    let (_directory, root) = tree();
    let _listener = UnixListener::bind(root.path("/run/docker.sock")).expect("binds");
    assert!(matches!(docker(&root), Presence::Absent { .. }));
    process(&root, 7, "containerd-shim", b"/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0");
    assert!(matches!(docker(&root), Presence::Absent { .. }), "another's shim");
    process(&root, 8, "containerd-shim", b"/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-id\0x\0");
    assert!(matches!(docker(&root), Presence::Absent { .. }), "its container has ended");
    fs::write(root.path("/proc/8/task/1/children"), "9 ").expect("writes");
    assert_eq!(docker(&root), Presence::Ready);
}

#[test]
fn pods_are_asked_for_where_their_shims_say() {
    let (_directory, root) = tree();
    process(
        &root,
        7,
        "containerd-shim",
        b"/containerd-shim-x\0-namespace\0k8s.io\0-id\0p\0-address\0/run/c.sock\0",
    );
    assert_eq!(of_pods(&root, &Running::look(&root).expect("looks")), [], "no container of it runs");
    fs::write(root.path("/proc/7/task/1/children"), "9 ").expect("writes");
    process(&root, 8, "kubelet", b"/usr/bin/kubelet\0");
    fs::write(root.path("/proc/8/cgroup"), "0::/system.slice/kubelet.service\n").expect("writes");
    let running = Running::look(&root).expect("looks");
    let engines = of_pods(&root, &running);
    assert_eq!((engines[0].kind, engines[0].socket.as_str()), (Kind::Containerd, "/run/c.sock"));
    assert!(matches!(engines[0].presence, Presence::Unreachable { .. }), "{engines:?}");
    assert_eq!(running.kubelet(), Some("kubelet.service"));

    // rke2 runs both in one unit.
    process(&root, 10, "containerd", b"containerd\0");
    fs::write(root.path("/proc/10/cgroup"), "0::/system.slice/kubelet.service\n").expect("writes");
    assert_eq!(Running::look(&root).expect("looks").kubelet(), None);
}

#[test]
fn a_kubernetes_in_a_container_is_that_containers() {
    let (_directory, root) = tree();
    process(
        &root,
        7,
        "containerd-shim",
        b"/containerd-shim-x\0-namespace\0k8s.io\0-id\0p\0-address\0/run/c.sock\0",
    );
    fs::write(root.path("/proc/7/task/1/children"), "9 ").expect("writes");
    process(&root, 8, "kubelet", b"/usr/bin/kubelet\0");
    let cgroup = "0::/system.slice/docker-0a.scope/kubelet.slice/kubelet.service\n";
    fs::write(root.path("/proc/8/cgroup"), cgroup).expect("writes");
    for (pid, namespace) in [(1, "pid:[1]"), (7, "pid:[2]"), (8, "pid:[2]")] {
        let directory = root.path(format!("/proc/{pid}/ns"));
        fs::create_dir_all(&directory).expect("creates");
        std::os::unix::fs::symlink(namespace, directory.join("pid")).expect("links");
    }
    let running = Running::look(&root).expect("looks");
    assert_eq!((running.containerds().len(), running.kubelet()), (0, None));
}

#[test]
fn a_refusal_is_typed() {
    let (_directory, root) = tree();
    process(&root, 7, "dockerd", b"/usr/sbin/dockerd\0");
    assert!(matches!(docker(&root), Presence::Unreachable { errno: None, .. }));
    drop(UnixListener::bind(root.path("/run/docker.sock")).expect("binds"));
    let Presence::Unreachable { errno, reason } = docker(&root) else { panic!("the socket is closed") };
    assert_eq!(errno, Some(111), "{reason}");
    assert!(reason.contains("/run/docker.sock"), "{reason}");
}

#[test]
fn each_users_podman_is_another_engine() {
    let (_directory, root) = tree();
    process(&root, 9, "conmon", b"/usr/bin/conmon\0--api-version\x001\0-c\0beef\0-b\0/srv/beef\0");
    let podmans = || Running::look(&root).expect("looks").podmans();
    assert_eq!(podmans(), BTreeSet::from([None]));
    of_user(&root, 9, 1000);
    assert_eq!(podmans(), BTreeSet::from([Some(1000)]));
    let running = Running::look(&root).expect("looks");
    assert_eq!((running.bundle(1000, "beef"), running.bundle(1001, "beef")), (Some("/srv/beef"), None));
    let find = |user| find(&root, Kind::Podman, user, &running);
    assert!(matches!(find(None).presence, Presence::Absent { .. }));
    // Nothing of a user's is opened here: whether it answers is that user's side to say.
    assert_eq!(find(Some(1000)).presence, Presence::Ready);
    assert_eq!(find(Some(1000)).to_string(), "Podman of user 1000");
    let _listener = UnixListener::bind(root.path("/run/podman/podman.sock")).expect("binds");
    assert!(podman_listens(&root));
}

const BUNDLE: &str = r#"{"linux":{"devices":[{"path":"/dev/nvidia0","type":"c","major":195,"minor":0}]}}"#;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
    fs::write(path, text).expect("writes");
}

/// A shim that runs in `directory`, as containerd starts it.
fn shim(root: &Root, pid: u32, namespace: &str, directory: &str) {
    let cmdline =
        format!("/usr/bin/containerd-shim-runc-v2\0-namespace\0{namespace}\0-id\0s\0-address\0/run/c.sock\0");
    process(root, pid, "containerd-shim", cmdline.as_bytes());
    fs::write(root.path(format!("/proc/{pid}/task/1/children")), "9 ").expect("writes");
    std::os::unix::fs::symlink(root.path(directory), root.path(format!("/proc/{pid}/cwd"))).expect("links");
}

#[test]
fn bundles_are_found_where_each_engine_has_them() {
    for (namespace, place) in [
        ("k8s.io", "/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io"),
        ("k8s.io", "/run/k0s/containerd/io.containerd.runtime.v2.task/k8s.io"),
        ("k8s.io", "/var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task/k8s.io"),
        ("moby", "/run/snap.docker/containerd/daemon/io.containerd.runtime.v2.task/moby"),
        ("moby", "/srv/exec-root/containerd/daemon/io.containerd.runtime.v2.task/moby"),
        ("default", "/run/containerd/io.containerd.runtime.v2.task/default"),
        // Of a shim before version 2.
        ("moby", "/run/containerd/io.containerd.runtime.v1.linux/moby"),
    ] {
        let (_directory, root) = tree();
        write(&root.path(format!("{place}/s/config.json")), "{}");
        // Another of the same pod, which has no shim of its own.
        write(&root.path(format!("{place}/0a/config.json")), BUNDLE);
        shim(&root, 7, namespace, &format!("{place}/s"));
        let running = Running::look(&root).expect("looks");
        let bundle = running.of_containerd(&root, namespace, "0a").expect(place);
        assert_eq!(bundle.devices, [("/dev/nvidia0".to_owned(), (195, 0))], "{place}");
        for (namespace, id) in [(namespace, "0b"), ("other", "0a"), (namespace, "../0a"), (namespace, "")] {
            assert_eq!(running.of_containerd(&root, namespace, id), None, "{place} {namespace} {id}");
        }
        let mut all: Vec<String> = running.all_of_containerd().into_iter().map(|(_, id, _)| id).collect();
        all.sort();
        assert_eq!(all, ["0a", "s"], "{place}");
    }
}

#[test]
fn a_bundle_of_podman_is_where_its_monitor_says() {
    for place in [
        "/srv/containers/storage/overlay-containers/0a/userdata",
        "/var/lib/containers/storage/btrfs-containers/0a/userdata",
    ] {
        let (_directory, root) = tree();
        write(&root.path(format!("{place}/config.json")), BUNDLE);
        let cmdline =
            format!("/usr/bin/conmon\0--api-version\x001\0-c\x000a\0-b\0{place}\0-r\0/usr/bin/crun\0");
        process(&root, 7, "conmon", cmdline.as_bytes());
        let running = Running::look(&root).expect("looks");
        assert!(running.of_monitor(&root, "0a").is_some(), "{place}");
        assert_eq!((running.runtime(0, "0a"), running.crio()), (Some("/usr/bin/crun"), None));
    }
    let (_directory, root) = tree();
    write(&root.path("/var/lib/containers/storage/vfs-containers/0a/userdata/config.json"), BUNDLE);
    let running = Running::look(&root).expect("looks");
    assert!(running.of_monitor(&root, "0a").is_some(), "without a monitor");
    assert_eq!(running.of_monitor(&root, "0b"), None);
}

#[test]
fn a_monitor_of_crios_is_none_of_podmans() {
    let (_directory, root) = tree();
    let cmdline = b"/usr/bin/conmon\0-b\0/run/containers/storage/overlay-containers/0a/userdata\0-c\x000a\0--exit-dir\0/var/run/crio/exits\0-r\0/usr/bin/nvidia-container-runtime\0";
    process(&root, 7, "conmon", cmdline);
    let running = Running::look(&root).expect("looks");
    assert_eq!((running.podmans().len(), running.crio()), (0, Some("/run/crio/crio.sock")));
    assert_eq!(running.runtime(0, "0a"), Some("/usr/bin/nvidia-container-runtime"));
    process(&root, 8, "crio", b"/usr/bin/crio\0--listen=/srv/crio.sock\0");
    let engines = of_pods(&root, &Running::look(&root).expect("looks"));
    assert_eq!((engines[0].kind, engines[0].socket.as_str()), (Kind::CriO, "/srv/crio.sock"));
    assert!(matches!(engines[0].presence, Presence::Unreachable { .. }), "it is said, and is not nothing");
}
