// SPDX-License-Identifier: MIT
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::*;

const BOOT: &str = "01234567-89ab-cdef-0123-456789abcdef";
const LOST: &str = "NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:26b5) installed in this system has\nNVRM: fallen off the bus and is not responding to commands.";

/// A machine with `kmsg` as the kernel's log.
fn machine(kmsg: &str) -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    for path in ["/proc/sys/kernel/random", "/run/nvidia-reload", "/dev"] {
        fs::create_dir_all(root.path(path)).expect("creates");
    }
    fs::write(root.path("/proc/sys/kernel/random/boot_id"), format!("{BOOT}\n")).expect("writes");
    say(&root, kmsg);
    (directory, root)
}

fn say(root: &Root, kmsg: &str) {
    fs::write(root.path("/dev/kmsg"), kmsg).expect("writes");
}

fn xid(code: u32) -> String {
    format!("NVRM: Xid (PCI:0000:01:00): {code}, pid=7, name=a, text")
}

fn log(messages: &[Message]) -> Vec<(u64, String)> {
    messages.iter().map(|message| (message.usec, message.text.clone())).collect()
}

#[test]
fn only_facility_0_is_the_kernels() {
    let text = format!(
        "6,0,0,-;Linux version 6.1\n SUBSYSTEM=pci\n12,1,500,-;{0}\n4,2,600,-,caller=T17;{0}\n28,3,700,-;{0}\n4,4,800,-;{1}\n",
        xid(79),
        LOST.replace('\n', "\\x0a"),
    );
    let (_directory, root) = machine(&text);
    let log_now = read_log(&root).expect("reads");
    assert_eq!(log(&log_now.messages), [(600, xid(79)), (800, LOST.to_owned())]);
    assert_eq!(log_now.until, 800);
}

#[test]
fn no_program_takes_an_error_back() {
    let healthy = "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x1 (a) to 0x0 (b)";
    let load = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.105.08  Wed Oct 29 23:15:11 UTC 2025";
    let reset = "nvsentinel-gpu-reset: GPU reset executed: GPU-b6c3b2be, success: true";
    let forged =
        format!("12,2,700,-;{healthy}\n12,3,800,-;{load}\n12,4,900,-;{reset}\n30,5,950,-;{healthy}\n");
    let (_directory, root) = machine(&format!("6,0,0,-;Linux version\n4,1,600,-;{}\n{forged}", xid(95)));
    assert_eq!(log(&read_log(&root).expect("reads").messages), [(600, xid(95))]);
    // The driver's own word is read.
    say(&root, &format!("6,0,0,-;Linux version\n4,1,600,-;{}\n{forged}4,6,990,-;{healthy}\n", xid(95)));
    let messages = read_log(&root).expect("reads").messages;
    assert_eq!(log(&messages), [(600, xid(95)), (990, healthy.to_owned())]);
    // Nor by the journal, whatever the program's entry says of itself.
    let mut exported = exported(&[(100, &xid(95))]);
    for transport in ["syslog", "stdout", "journal"] {
        exported.extend(
            format!("__CURSOR=x\n_TRANSPORT={transport}\nSYSLOG_FACILITY=0\nSYSLOG_IDENTIFIER=kernel\nMESSAGE={healthy}\n\n")
                .into_bytes(),
        );
    }
    let all = assemble(Memory::default(), Ok(ring(7, 900)), |_, each| {
        Ok(xid::read_export(exported.as_slice(), each)?)
    });
    assert_eq!(log(&all.expect("reads").messages), [(100, xid(95)), (900, xid(31))]);
}

/// Written by the first version: an upgrade loses no message.
#[test]
fn the_file_of_the_first_version_is_read() {
    let (_directory, root) = machine("6,9,900,-;Linux version\n");
    let text = include_str!("../corpus/memory/kept");
    fs::write(root.path("/run/nvidia-reload/messages.json"), text).expect("writes");
    let memory = Memory::load(&root, BOOT).expect("loads");
    assert_eq!(log(&memory.messages()), [(600, xid(79))]);
}

#[test]
fn what_was_saved_is_not_new() {
    let (_directory, root) = machine(&format!("6,0,0,-;Linux version\n4,1,600,-;{}\n", xid(79)));
    let first = read_log(&root).expect("reads");
    assert_eq!((first.messages.len(), first.news_since()), (1, 0));
    first.save(&root).expect("saves");
    // The kernel's log forgot it.
    say(&root, &format!("6,9,500,-;older\n6,10,700,-;x\n4,11,900,-;{}\n", xid(31)));
    let second = read_log(&root).expect("reads");
    assert_eq!(log(&second.messages), [(600, xid(79)), (900, xid(31))]);
    assert_eq!(second.news_since(), 600);
    // Another boot has nothing to do with it.
    fs::write(root.path("/proc/sys/kernel/random/boot_id"), "another\n").expect("writes");
    say(&root, "6,0,0,-;Linux version\n");
    assert_eq!(read_log(&root).expect("reads").messages, []);
}

#[test]
fn news_are_the_loaded_drivers_own() {
    let load = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17 UTC 2025";
    let (_directory, root) = machine("6,0,0,-;Linux version\n");
    read_log(&root).and_then(|log| log.save(&root)).expect("saves");
    say(
        &root,
        &format!("6,0,0,-;Linux version\n4,1,600,-;{}\n4,2,700,-;{load}\n4,3,800,-;{}\n", xid(119), xid(31)),
    );
    assert_eq!(read_log(&root).expect("reads").news_since(), 700);
}

#[test]
fn a_reset_is_noted_at_the_time_of_the_log() {
    let (_directory, root) = machine(&format!("6,0,0,-;Linux version\n4,1,600,-;{}\n", xid(95)));
    let gpu: Address = "0000:01:00".parse().expect("an address");
    note_reset(&root, &[gpu]).expect("notes");
    let log = read_log(&root).expect("reads");
    assert_eq!(log.resets, BTreeMap::from([(gpu, 600)]));
    assert_eq!(log.news_since(), 600);
}

/// Entries of a journal, as journalctl exports them.
fn exported(entries: &[(u64, &str)]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|(usec, text)| {
            format!("__CURSOR=c{usec}\n__MONOTONIC_TIMESTAMP=1\n_SOURCE_MONOTONIC_TIMESTAMP={usec}\nMESSAGE={text}\n\n")
                .into_bytes()
        })
        .collect()
}

fn assembled(memory: Memory, ring: Result<Ring>, journal: Option<&[(u64, &str)]>) -> Result<Log> {
    assemble(memory, ring, |_, each| match journal {
        Some(entries) => Ok(xid::read_export(exported(entries).as_slice(), each)?),
        None => Err(anyhow!("there is no journal")),
    })
}

fn ring(sequence: u64, usec: u64) -> Ring {
    let message = kmsg::message(usec, &xid(31)).expect("is a message");
    Ring { first: Some(kmsg::First { sequence, usec }), last: Some(usec), messages: vec![message] }
}

#[test]
fn what_the_kernel_forgot_comes_from_the_journal() {
    let (old, said) = (xid(95), xid(31));
    let journal: &[(u64, &str)] = &[(100, &old), (150, "usb"), (900, &said)];
    let all = assembled(Memory::default(), Ok(ring(7, 900)), Some(journal)).expect("reads");
    assert_eq!(log(&all.messages), [(100, old.clone()), (900, said.clone())], "once each");
    assert_eq!(all.cursor.as_deref(), Some("c900"));
    // Nothing forgotten: the journal is not asked.
    let all = assembled(Memory::default(), Ok(ring(0, 900)), None).expect("reads");
    assert_eq!((all.messages.len(), all.lost_before), (1, None));
    // Known up to there.
    let memory = Memory { usec: 950, ..Memory::default() };
    let all = assembled(memory, Ok(ring(7, 900)), None).expect("reads");
    assert_eq!((all.messages.len(), all.lost_before), (0, None));
}

#[test]
fn without_a_journal_it_is_said_what_may_be_missing() {
    for journal in [None, Some(&[][..])] {
        let all = assembled(Memory::default(), Ok(ring(7, 900)), journal).expect("reads");
        assert_eq!((all.messages.len(), all.lost_before), (1, Some(900)));
        let error =
            assembled(Memory::default(), Err(anyhow!("open /dev/kmsg")), journal).expect_err("hears nothing");
        assert!(format!("{error:#}").contains("open /dev/kmsg"), "{error:#}");
    }
}

#[test]
fn without_the_kernels_log_the_journal_has_to_do() {
    let old = xid(95);
    let journal: &[(u64, &str)] = &[(100, &old), (150, "usb")];
    let all = assembled(Memory::default(), Err(anyhow!("denied")), Some(journal)).expect("reads");
    assert_eq!((log(&all.messages), all.until), (vec![(100, old.clone())], 150));
}

/// `MESSAGES_JOURNAL=DIRECTORY cargo test --release -p messages -- --ignored --nocapture`, with a journal
/// of boot 0123456789abcdef0123456789abcdef in it, shows how long it is read, and how long journalctl
/// itself takes for the same entries.
#[test]
#[ignore = "needs a large journal"]
fn a_large_journal_is_read_in_good_time() {
    let directory = std::env::var("MESSAGES_JOURNAL").expect("MESSAGES_JOURNAL names a directory");
    let directory = Path::new(&directory);
    for _ in 0..3 {
        let start = Instant::now();
        let status = Command::new("journalctl")
            .args(["--quiet", "--no-pager", "--output=export", "_TRANSPORT=kernel"])
            .arg(format!("_BOOT_ID={}", BOOT.replace('-', "")))
            .arg(format!("--directory={}", directory.display()))
            .stdout(std::process::Stdio::null())
            .status()
            .expect("starts");
        assert!(status.success());
        let bare = start.elapsed();
        let start = Instant::now();
        let (mut entries, mut found) = (0, 0);
        journal::read(Some(directory), BOOT, None, &mut |entry| {
            entries += 1;
            found += usize::from(kmsg::message(entry.usec().unwrap_or(0), &entry.message()).is_some());
        })
        .expect("reads");
        let ours = start.elapsed();
        println!(
            "journalctl -o export {bare:.1?}, read here {ours:.1?}: {entries} entries, {found} of the driver"
        );
        assert!(ours < 2 * bare, "{ours:?} and {bare:?}");
    }
}
