// SPDX-License-Identifier: MIT
//! The whole answer on trees of files that stand in for machines: `/proc` and `/sys` as a kernel
//! shows them, with devices that every machine has (`/dev/full`, `/dev/zero`) in place of the
//! driver's.

use holders::{Owner, Scan, Via, scan};
use std::fs;
use std::os::unix::fs::symlink;
use step::Root;
use tempfile::TempDir;

/// A machine on which major 1 is the driver's: `/dev/full` is `nvidia7`, `/dev/zero` `nvidia5`.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new(references: u32) -> Self {
        let machine = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        machine.write("/proc/devices", b"Character devices:\n  1 nvidia\n  5 /dev/tty\n\nBlock devices:\n");
        machine.write("/proc/stat", b"cpu  1 2 3\nbtime 1700000000\n");
        machine.write("/proc/self/status", b"CapEff:\t000001ffffffffff\n");
        machine.write("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n");
        machine.module("nvidia", references, &["nvidia_uvm"]);
        machine.module("nvidia_uvm", 0, &[]);
        machine
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.root().path(path);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("created");
        fs::write(path, bytes).expect("written");
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.root().path(path);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("created");
        symlink(target, path).expect("linked");
    }

    fn module(&self, name: &str, references: u32, dependents: &[&str]) {
        self.write(&format!("/sys/module/{name}/refcnt"), format!("{references}\n").as_bytes());
        let holders = self.root().path(format!("/sys/module/{name}/holders"));
        fs::create_dir_all(&holders).expect("created");
        for dependent in dependents {
            self.link(&format!("/sys/module/{name}/holders/{dependent}"), &format!("../../{dependent}"));
        }
    }

    fn process(&self, pid: i32, name: &str, command: &[u8], cgroup: &str) {
        let stat = format!("{pid} ({name}) S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 {pid}00 1 1\n");
        self.write(&format!("/proc/{pid}/stat"), stat.as_bytes());
        self.write(&format!("/proc/{pid}/status"), b"Name:\tx\nUid:\t1000\t1000\t1000\t1000\n");
        self.write(&format!("/proc/{pid}/cmdline"), command);
        self.write(&format!("/proc/{pid}/cgroup"), cgroup.as_bytes());
        self.write(&format!("/proc/{pid}/maps"), b"");
        fs::create_dir_all(self.root().path(format!("/proc/{pid}/fd"))).expect("created");
        fs::create_dir_all(self.root().path(format!("/proc/{pid}/task/{pid}/fd"))).expect("created");
    }

    fn open(&self, pid: i32, fd: i32, target: &str) {
        self.link(&format!("/proc/{pid}/fd/{fd}"), target);
    }

    fn root(&self) -> Root {
        Root::at(self.dir.path())
    }

    fn scan(&self) -> Scan {
        scan(&self.root()).expect("a scan")
    }

    fn pids(&self) -> Vec<i32> {
        self.scan().holders.iter().map(|holder| holder.pid).collect()
    }
}

#[test]
fn the_schema() {
    let machine = Machine::new(4);
    machine.process(
        70,
        "train",
        b"python3\0train.py\0--name\0odd\nname\xff\0",
        "0::/system.slice/train.service\n",
    );
    machine.open(70, 3, "/dev/full");
    machine.open(70, 4, "/dev/full");
    machine.open(70, 5, "/dev/tty");
    let text = serde_json::to_string_pretty(&machine.scan()).expect("encoded");
    insta::assert_snapshot!(text);
    let back: Scan = serde_json::from_str(&text).expect("decoded");
    assert_eq!(back, machine.scan());
}

#[test]
fn counts_that_are_explained_by_modules_need_no_search() {
    let machine = Machine::new(1);
    machine.process(70, "stale", b"stale\0", "0::/\n");
    machine.open(70, 3, "/dev/full");
    let found = machine.scan();
    assert!(!found.searched && found.holders.is_empty() && found.is_free());
    assert_eq!(found.modules.len(), 2);
}

#[test]
fn without_the_driver_a_stale_node_is_held_by_nobody() {
    let machine = Machine::new(4);
    machine.process(70, "stale", b"stale\0", "0::/\n");
    machine.open(70, 3, "/dev/full");
    fs::remove_dir_all(machine.root().path("/sys/module/nvidia")).expect("removed");
    let found = machine.scan();
    assert!(found.is_free() && found.modules.is_empty());
}

#[test]
fn decoys_are_not_holders() {
    let machine = Machine::new(2);
    machine.process(70, "real", b"real\0", "0::/\n");
    machine.open(70, 3, "/dev/full");
    machine.process(71, "nvidia-smi", b"nvidia-smi\0", "0::/\n");
    machine.write("/tmp/nvidia0.log", b"log");
    let log = machine.root().path("/tmp/nvidia0.log");
    machine.open(71, 3, log.to_str().expect("UTF-8"));
    machine.open(71, 4, "/dev/tty");
    machine.open(71, 5, "socket:[1]");
    machine.process(72, "kthread", b"", "0::/\n");
    assert_eq!(machine.pids(), [70]);
}

#[test]
fn a_thread_with_a_table_of_its_own() {
    let machine = Machine::new(2);
    machine.process(70, "threads", b"threads\0", "0::/\n");
    machine.link("/proc/70/task/71/fd/9", "/dev/full");
    let found = machine.scan();
    assert_eq!(found.holders.len(), 1);
    assert_eq!(found.holders[0].devices[0].via, Via::ThreadFd);
    assert!(found.unexplained.is_empty());
}

#[test]
fn a_mapping_without_a_descriptor_is_looked_for_when_something_is_unexplained() {
    let machine = Machine::new(3);
    machine.process(70, "open", b"open\0", "0::/\n");
    machine.open(70, 3, "/dev/full");
    machine.process(71, "mapped", b"mapped\0", "0::/\n");
    machine.write(
        "/proc/71/maps",
        b"00400000-00401000 r--p 00000000 fe:01 12  /usr/bin/mapped\n\
          7f0000000000-7f0000001000 rw-s 00000000 00:05 613  /dev/zero\n",
    );
    machine.link("/proc/71/map_files/7f0000000000-7f0000001000", "/dev/zero");
    let found = machine.scan();
    let ways: Vec<(i32, Via)> =
        found.holders.iter().map(|holder| (holder.pid, holder.devices[0].via)).collect();
    assert_eq!(ways, [(70, Via::Fd), (71, Via::Map)]);
    assert!(found.unexplained.is_empty());
}

#[test]
fn what_remains_is_named_with_its_number_and_the_likely_place() {
    let machine = Machine::new(5);
    machine.process(70, "open", b"open\0", "0::/\n");
    machine.open(70, 3, "/dev/full");
    machine.process(71, "receiver", b"receiver\0", "0::/\n");
    machine.open(71, 6, "socket:[77]");
    machine.write("/proc/71/fdinfo/6", b"pos:\t0\nflags:\t02\nmnt_id:\t8\nscm_fds: 2\n");
    machine.open(71, 7, "anon_inode:[io_uring]");
    machine.write("/proc/71/fdinfo/7", b"pos:\t0\nUserFiles:\t0\n");
    let found = machine.scan();
    assert_eq!(found.unexplained.len(), 1);
    assert_eq!((found.unexplained[0].module.as_str(), found.unexplained[0].references), ("nvidia", 3));
    insta::assert_snapshot!(serde_json::to_string(&found.unexplained[0].places).expect("encoded"), @r#"[{"type":"socket","pid":71,"start_ticks":7100,"comm":"receiver","fd":6,"in_flight":2,"uid":1000,"sender":null,"address":""}]"#);
    assert!(!found.is_free());
}

#[test]
fn a_module_of_others_stands_on_the_driver() {
    let machine = Machine::new(2);
    machine.link("/sys/module/nvidia/holders/gdrdrv", "../../gdrdrv");
    machine.module("gdrdrv", 2, &[]);
    machine.write("/proc/devices", b"Character devices:\n195 nvidia\n  1 gdrdrv\n");
    machine.process(70, "copy", b"copy\0", "0::/\n");
    machine.open(70, 3, "/dev/full");
    let found = machine.scan();
    assert_eq!(found.kernel_holders().map(|module| module.name.as_str()).collect::<Vec<_>>(), ["gdrdrv"]);
    assert_eq!(found.holders[0].devices[0].module, "gdrdrv");
}

#[test]
fn the_owner_is_read_from_any_layout() {
    let machine = Machine::new(4);
    machine.process(70, "a", b"a\0", "0::/user.slice/user-1000.slice/session-4.scope\n");
    machine.process(71, "b", b"b\0", "2:cpu:/\n1:name=systemd:/system.slice/b.service\n0::/\n");
    for pid in [70, 71] {
        machine.open(pid, 3, "/dev/full");
    }
    let owners: Vec<Owner> = machine.scan().holders.into_iter().map(|holder| holder.owner).collect();
    assert_eq!(
        owners,
        [
            Owner::Session { id: "4".into(), uid: Some(1000) },
            Owner::SystemUnit { unit: "b.service".into(), slice: "system.slice".into() },
        ]
    );
}

#[test]
fn processes_that_are_half_gone_are_no_error() {
    let machine = Machine::new(2);
    machine.process(70, "real", b"real\0", "0::/\n");
    machine.open(70, 3, "/dev/full");
    // Nothing but the directory; no table; a table and nothing else.
    fs::create_dir_all(machine.root().path("/proc/71")).expect("created");
    machine.write("/proc/72/stat", b"72 (x");
    fs::create_dir_all(machine.root().path("/proc/73/fd")).expect("created");
    machine.open(73, 3, "/dev/full");
    machine.write("/proc/75x/stat", b"");
    assert_eq!(machine.pids(), [70]);
}

#[test]
fn ten_thousand_descriptors() {
    let machine = Machine::new(2);
    machine.process(70, "many", b"many\0", "0::/\n");
    for fd in 0..9_999 {
        machine.open(70, fd, "/dev/tty");
    }
    machine.open(70, 9_999, "/dev/full");
    assert_eq!(machine.pids(), [70]);
}

#[test]
fn what_may_not_be_seen_is_said() {
    let machine = Machine::new(2);
    machine.write("/proc/self/status", b"CapEff:\t0000000000000000\n");
    machine.write("/proc/self/mountinfo", b"22 1 0:2 / /proc rw - proc proc rw,hidepid=invisible\n");
    let found = machine.scan();
    assert!(found.unseen[0].contains("hidepid=invisible"), "{:?}", found.unseen);
    assert_eq!(found.unexplained[0].references, 1);
}

#[test]
fn memory_of_a_gpu_is_added_to_who_has_it() {
    let machine = Machine::new(2);
    machine.process(70, "real", b"real\0", "0::/\n");
    machine.open(70, 3, "/dev/full");
    let mut found = machine.scan();
    assert_eq!(
        found.add_gpu_memory(&[(70, Some(5)), (99, Some(1)), (70, Some(6)), (70, None), (99, None)]),
        [99]
    );
    assert_eq!(found.holders[0].gpu_memory, Some(11));
}
