// SPDX-License-Identifier: MIT
//! What a user can make large, measured beside `fuser`: `cargo rig bench` runs this.

#![allow(unsafe_code)]

use super::*;
use crate::account::account;
use crate::device::{Kind, Rdev};
use crate::model::Module;
use crate::scan;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `/dev/full` stands in for the driver's.
const FULL: Rdev = Rdev { major: 1, minor: 7 };

/// Processes that end with the measurement.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("open").into()
}

/// Holders with as long a command line as the kernel lets a single argument be.
fn long_commands(count: usize) -> Crowd {
    let long = "x".repeat((128 << 10) - 1);
    let start = |_| {
        // It waits for what never comes.
        let mut command = Command::new("sh");
        command.args(["-c", "read line", "sh", &long]).stdin(Stdio::piped()).stdout(full());
        command.spawn().expect("starts")
    };
    Crowd((0..count).map(start).collect())
}

/// Processes with as many descriptors as they may have: of one file each, or each of a file of its own.
fn descriptors(count: usize, dup: bool) -> Crowd {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(1 << 20);
    let each = usize::try_from(limit).expect("a size").min(count) - 16;
    let start = |number: usize| {
        let file = File::open("/dev/full").expect("open");
        let many = each.min(count - number * each);
        let mut command = Command::new("sleep");
        command.arg("600");
        let open = move || {
            let rlimit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            for _ in 0..many {
                // SAFETY: calls that may be made after a fork; the path ends with a zero.
                let fd = unsafe {
                    libc::setrlimit(libc::RLIMIT_NOFILE, &rlimit);
                    match dup {
                        true => libc::dup(file.as_raw_fd()),
                        false => libc::open(c"/dev/full".as_ptr(), libc::O_RDONLY),
                    }
                };
                if fd < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: it calls nothing but the above.
        unsafe { command.pre_exec(open) };
        command.spawn().expect("starts")
    };
    Crowd((0..count.div_ceil(each)).map(start).collect())
}

fn peak_in(status: &[u8]) -> Option<u64> {
    let kib: u64 = process::field_of(status, "VmHWM")?.trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}

/// Seconds and peak memory of the search and the account of it: all that a scan does where something is
/// unexplained.
fn ours(processes: usize, descriptors: usize) -> (f64, u64) {
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak starts over");
    let begin = Instant::now();
    let node = Node { kind: Kind::Ctl, name: "stand-in".into(), module: "nvidia".into() };
    let table = Table::of_node(FULL, node);
    let walked = Search::run(Path::new("/proc"), table.clone(), true, true).expect("a walk");
    let references = i64::try_from(descriptors).expect("a number");
    let module =
        Module { name: "nvidia".into(), refcount: Some(references), dependents: Vec::new(), of_driver: true };
    let account = account(&[module], &table, &walked.found, true);
    let counted: u64 = walked.found.iter().map(|found| found.files.len() as u64).sum();
    let holders = scan::describe(&step::Root::system(), walked.found);
    let text = serde_json::to_vec(&holders).expect("encodes");
    let time = begin.elapsed().as_secs_f64();
    let status = std::fs::read("/proc/self/status").expect("reads");
    let result = (time, peak_in(&status).expect("a peak"));
    assert!(holders.len() >= processes && counted >= descriptors as u64, "all are found: {counted}");
    assert!(!text.is_empty());
    drop(account);
    result
}

/// The same of `fuser`, which names who holds a node.
fn fuser() -> (f64, u64) {
    let begin = Instant::now();
    let child = Command::new("fuser").arg("/dev/full").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("starts");
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    // The kernel's own account of a child that has ended has the memory of who started it in it.
    while child.try_wait().expect("a child").is_none() {
        let text = std::fs::read(&status).unwrap_or_default();
        if process::field_of(&text, "Name").as_deref() == Some("fuser") {
            memory = memory.max(peak_in(&text).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    (begin.elapsed().as_secs_f64(), memory)
}

#[test]
#[ignore = "a measurement"]
fn what_users_can_make_large() {
    type Make = fn() -> Crowd;
    let cases: [(&str, usize, usize, Make); 3] = [
        ("4,000 holders with 128 KiB of arguments", 4_000, 4_000, || long_commands(4_000)),
        ("500,000 descriptors of one file a process", 1, 500_000, || descriptors(500_000, true)),
        ("500,000 descriptors of as many files", 1, 500_000, || descriptors(500_000, false)),
    ];
    for (name, processes, files, make) in cases {
        let crowd = make();
        let best = |run: &dyn Fn() -> (f64, u64)| {
            (0..3).map(|_| run()).fold((f64::MAX, 0), |best, one| (best.0.min(one.0), best.1.max(one.1)))
        };
        let (search, peak_memory) = best(&|| ours(processes, files));
        let (fuser, fuser_memory) = best(&fuser);
        drop(crowd);
        #[expect(clippy::print_stdout, reason = "the result of a measurement")]
        {
            println!(
                "{{\"name\":\"{name}\",\"search\":{search},\"fuser\":{fuser},\
                 \"peak_memory\":{peak_memory},\"fuser_memory\":{fuser_memory}}}"
            );
        }
    }
}
