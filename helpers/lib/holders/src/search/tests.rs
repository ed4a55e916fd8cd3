// SPDX-License-Identifier: MIT
//! The search on real processes, with devices of the kernel's own in place of the driver's.

#![allow(unsafe_code)]

use super::*;
use crate::device::{Kind, Rdev};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

/// `/dev/full`: no process holds it by accident.
const FULL: Rdev = Rdev { major: 1, minor: 7 };
/// `/dev/random`: for the one test in which this very process is the holder.
const RANDOM: Rdev = Rdev { major: 1, minor: 8 };
/// `/dev/zero`: it can be mapped.
const ZERO: Rdev = Rdev { major: 1, minor: 5 };

fn search(rdev: Rdev) -> Search {
    let node = Node { kind: Kind::Gpu, name: "stand-in".into(), module: "nvidia".into() };
    Search {
        proc: open_dir(rustix::fs::CWD, "/proc").expect("/proc"),
        groups: "/sys/fs/cgroup".into(),
        table: Table::of_node(rdev, node),
        kcmp: kcmp::same_file_table(me(), me()).is_some(),
        maps: true,
    }
}

fn me() -> i32 {
    i32::try_from(std::process::id()).expect("a pid")
}

/// The search, of one process.
fn look(rdev: Rdev, pid: i32) -> Option<Found> {
    let search = Arc::new(search(rdev));
    let found = match search.visit(&mut Scratch::new(), pid) {
        Some(Inspection::Holder(found)) => *found,
        Some(Inspection::Blocked(Blocked { error, .. })) => panic!("{pid}: {error}"),
        None => return None,
    };
    let mut result = Result { found: vec![found], blocked: Vec::new(), stuck: Vec::new() };
    search.complete(&mut result);
    result.found.pop()
}

fn ways(found: &Found) -> Vec<(Via, u32)> {
    found.holder.devices.iter().map(|device| (device.via, device.count)).collect()
}

/// A process that ends with its test.
struct Sleeper(Child);

impl Sleeper {
    fn start(stdin: Stdio) -> Self {
        Self(Command::new("sleep").arg("600").stdin(stdin).spawn().expect("sleep"))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a pid")
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_plain_descriptor() {
    let child = Sleeper::start(File::open("/dev/full").expect("open").into());
    let found = look(FULL, child.pid()).expect("a holder");
    assert_eq!(ways(&found), [(Via::Fd, 1)]);
    assert_eq!(found.holder.pid, child.pid());
    assert_eq!(found.holder.command, ["sleep", "600"]);
    assert_eq!(found.holder.devices[0].path, "/dev/full");
    assert_eq!(found.files[0].at, (child.pid(), 0));
    assert!(look(ZERO, child.pid()).is_none());
}

#[test]
fn no_holder_and_no_process() {
    let mut child = Sleeper::start(Stdio::null());
    assert!(look(FULL, child.pid()).is_none());
    let pid = child.pid();
    let _ = child.0.kill();
    assert!(look(FULL, pid).is_none(), "a zombie");
    let _ = child.0.wait();
    assert!(look(FULL, pid).is_none(), "gone");
}

#[test]
fn a_node_under_another_name_even_when_unlinked() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("innocent");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::RUSR,
        rustix::fs::makedev(FULL.major, FULL.minor),
    );
    // Not everybody may make nodes, and not every file system lets them be opened.
    let Some(file) = made.ok().and_then(|()| File::open(&path).ok()) else { return };
    std::fs::remove_file(&path).expect("removed");
    let child = Sleeper::start(file.into());
    let found = look(FULL, child.pid()).expect("a holder");
    assert!(found.holder.devices[0].path.ends_with("innocent (deleted)"));
}

#[test]
fn a_file_of_that_name_is_no_device() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let decoy = File::create(dir.path().join("nvidia0")).expect("created");
    let child = Sleeper::start(decoy.into());
    assert!(look(FULL, child.pid()).is_none());
}

#[test]
fn a_node_that_is_only_named_is_not_held() {
    let flags = rustix::fs::OFlags::PATH;
    let named = rustix::fs::open("/dev/full", flags, rustix::fs::Mode::empty()).expect("a descriptor");
    let child = Sleeper::start(Stdio::from(named));
    assert!(look(FULL, child.pid()).is_none());
}

/// Our own process is the holder, so these are devices that no other test opens.
#[test]
fn a_thread_with_its_own_table_and_a_mapping_without_descriptor() {
    let (started, start) = channel();
    let (end, ended) = channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: only this thread's table of descriptors is copied; std keeps none by number.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        let file = File::open("/dev/random").expect("open");
        started.send(()).expect("sent");
        let _ = ended.recv();
        drop(file);
    });
    start.recv().expect("started");
    let found = look(RANDOM, me()).expect("a holder");
    assert_eq!(ways(&found), [(Via::ThreadFd, 1)]);
    assert_ne!(found.files[0].at.0, me());
    drop(end);
    thread.join().expect("ended");
    assert!(look(RANDOM, me()).is_none());

    let file = File::open("/dev/zero").expect("open");
    // SAFETY: a fresh mapping where the kernel likes; nothing refers to it.
    let mapping = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    };
    assert_ne!(mapping, libc::MAP_FAILED);
    drop(file);
    let found = look(ZERO, me()).expect("a holder");
    assert_eq!(ways(&found), [(Via::Map, 1)]);
    // SAFETY: the mapping made above, unmapped once.
    assert_eq!(unsafe { libc::munmap(mapping, 4096) }, 0);
    assert!(look(ZERO, me()).is_none());
}

#[test]
fn everybody_is_walked() {
    let child = Sleeper::start(File::open("/dev/full").expect("open").into());
    let node = Node { kind: Kind::Gpu, name: "stand-in".into(), module: "nvidia".into() };
    let walked = Search::run(Path::new("/proc"), Table::of_node(FULL, node), true, true).expect("a walk");
    assert!(walked.found.iter().any(|found| found.holder.pid == child.pid()));
    assert!(walked.stuck.is_empty());
}

/// The time of a scan beside that of the tools people use, on this machine as it is, as JSON:
/// `cargo rig bench` fills the machine with processes and runs this.
#[test]
#[ignore = "a measurement"]
fn compared_with_fuser_and_lsof() {
    use std::time::{Duration, Instant};
    let best = |run: &dyn Fn()| {
        let time = |_| {
            let begin = Instant::now();
            run();
            begin.elapsed()
        };
        (0..5).map(time).min().unwrap_or(Duration::MAX).as_secs_f64()
    };
    let holder = Sleeper::start(File::open("/dev/full").expect("open").into());
    let tool = |name: &str| {
        best(&|| {
            let output = Command::new(name).arg("/dev/full").stderr(Stdio::null()).output().expect("starts");
            let found = String::from_utf8_lossy(&output.stdout).contains(&holder.pid().to_string());
            assert!(found, "{name} finds the holder");
        })
    };
    let processes = walk::processes(Path::new("/proc")).expect("/proc").len();
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak starts over");
    let scan = best(&|| {
        let node = Node { kind: Kind::Gpu, name: "stand-in".into(), module: "nvidia".into() };
        let walked =
            Search::run(Path::new("/proc"), Table::of_node(FULL, node), true, false).expect("a walk");
        assert!(walked.found.iter().any(|found| found.holder.pid == holder.pid()));
    });
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak: u64 = peak.and_then(|kib| kib.parse().ok()).expect("a number");
    // References that the dependents explain: there is no holder to look for.
    let idle = tempfile::tempdir().expect("a temporary directory");
    for path in ["sys/module/nvidia/holders/nvidia_uvm", "sys/module/nvidia_uvm/holders"] {
        std::fs::create_dir_all(idle.path().join(path)).expect("created");
    }
    std::fs::write(idle.path().join("sys/module/nvidia/refcnt"), "1\n").expect("written");
    std::fs::write(idle.path().join("sys/module/nvidia_uvm/refcnt"), "0\n").expect("written");
    std::os::unix::fs::symlink("/proc", idle.path().join("proc")).expect("linked");
    let root = step::Root::at(idle.path());
    let fast_path = best(&|| {
        let scan = crate::scan(&root).expect("an answer");
        assert!(!scan.searched && !scan.modules.is_empty());
    });
    let (fuser, lsof) = (tool("fuser"), tool("lsof"));
    #[expect(clippy::print_stdout, reason = "the result of a measurement")]
    {
        println!(
            "{{\"processes\":{processes},\"scan\":{scan},\"fuser\":{fuser},\"lsof\":{lsof},\
             \"fast_path\":{fast_path},\"peak_memory\":{}}}",
            peak * 1024
        );
    }
}
