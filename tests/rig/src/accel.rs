// SPDX-License-Identifier: MIT
//! KVM only where it really boots: a /dev/kvm that is there and does not work
//! is common on rented machines.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::cache::{Cache, Key};
use crate::command::{output_of, tie};
use crate::progress::note;
use crate::room::Room;

/// How QEMU runs the guest, and where QEMU is.
#[derive(Debug, Clone)]
pub struct Accel {
    /// For `-accel`.
    pub name: &'static str,
    /// For `-cpu`.
    pub cpu: &'static str,
    /// More words for the guest kernel's command line.
    pub kernel: &'static [&'static str],
    /// What a saved state depends on besides the machine's description.
    pub fingerprint: String,
    /// QEMU and what goes with it.
    pub tools: Room,
}

/// What works here. The finding is kept for this boot of the host and this
/// QEMU.
pub fn choose(cache: &Cache, tools: &Room, kernel: &Path) -> Result<Accel> {
    let version = output_of(tools.command("qemu-system-x86_64").arg("--version"))?;
    let version = version.lines().next().unwrap_or_default().to_owned();
    let tcg = Accel {
        name: "tcg,thread=multi",
        cpu: "max",
        // QEMU translates a program again wherever it lies at another address, so each start of a program costs as
        // if its code were new. A processor has no such cost.
        kernel: &["norandmaps"],
        fingerprint: version.clone(),
        tools: tools.clone(),
    };
    if !Path::new("/dev/kvm").exists() {
        return Ok(tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let finding = cache.root().join("kvm");
    let question = Key::new("kvm 1").with(&boot).with(&version).digest();
    let works = match fs::read_to_string(&finding).ok().as_deref().and_then(|text| text.split_once(' ')) {
        Some((asked, answer)) if asked == question => answer.trim() == "works",
        _ => {
            let works = boots(tools, kernel);
            if !works {
                note("/dev/kvm is there but boots nothing: using software emulation");
            }
            let answer = if works { "works" } else { "fails" };
            fs::write(&finding, format!("{question} {answer}\n"))?;
            works
        }
    };
    if !works {
        return Ok(tcg);
    }
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model: Vec<&str> = cpu
        .lines()
        .filter(|line| line.starts_with("model name") || line.starts_with("flags"))
        .take(2)
        .collect();
    let fingerprint = format!("{version} {}", model.join(" "));
    Ok(Accel { name: "kvm", cpu: "host", kernel: &[], fingerprint, ..tcg })
}

/// Boots the guest's own kernel without a disk: it works when the kernel comes
/// as far as missing its root file system.
fn boots(tools: &Room, kernel: &Path) -> bool {
    let mut qemu = tools.qemu();
    qemu.args(["-machine", "q35", "-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "512"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let Ok(mut child) = tie(&mut qemu, Signal::SIGKILL).spawn() else {
        return false;
    };
    let Some(mut console) = child.stdout.take() else {
        return false;
    };
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = console.read_to_end(&mut text);
        String::from_utf8_lossy(&text).contains("Unable to mount root fs")
    });
    let until = Instant::now() + Duration::from_secs(20);
    while !reader.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    reader.join().unwrap_or(false)
}
