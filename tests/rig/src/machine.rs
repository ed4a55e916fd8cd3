// SPDX-License-Identifier: MIT
//! The virtual machine: started, reached, frozen, and always ended.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::accel::Accel;
use crate::cache::{Cache, Folder, Key, Stage};
use crate::cleanup;
use crate::command::tie;
use crate::fleet::Lan;
use crate::progress::note;
use crate::qmp::Qmp;
use crate::room::Room;
use crate::ssh::Connection;
use crate::stages::{Built, DRIVERS, Distro};

/// The frozen machine's disk and state, in a stage that has them.
const DISK: &str = "disk.qcow2";
const STATE: &str = "state.zst";

/// Under emulation a boot takes 20 s on an idle host, and minutes on a busy one.
const BOOT: Duration = Duration::from_secs(900);

/// What a scenario may ask of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The userland.
    pub distro: Distro,
    /// GPUs, 1 to 8.
    pub gpus: u32,
    /// The driver that is on disk and loaded.
    pub driver: String,
    /// More words for the kernel's command line.
    pub kernel: Vec<String>,
    /// The network that it shares with others.
    pub lan: Option<Lan>,
}

impl Default for Spec {
    /// Where nothing is asked for: one GPU, and the first of the drivers.
    fn default() -> Self {
        Spec {
            distro: Distro::default(),
            gpus: 1,
            driver: DRIVERS[0].version.to_owned(),
            kernel: Vec::new(),
            lan: None,
        }
    }
}

/// A running machine; ends when dropped.
pub struct Machine {
    qemu: Child,
    qmp: Qmp,
    dir: Folder,
    port: u16,
    image: Stage,
    tools: Room,
    /// How many times it has come up.
    boots: usize,
    ssh: Option<Connection>,
}

impl Machine {
    /// Starts the machine with the disk of `image`, for the first time.
    pub fn boot(cache: &Cache, image: &Stage, disk: &Path, spec: &Spec, accel: &Accel) -> Result<Self> {
        let mut machine = Machine::start(cache, image, disk, spec, accel, false)?;
        machine.wait_up()?;
        Ok(machine)
    }

    /// Wakes the machine frozen in `frozen`, with a disk that takes writes
    /// over the frozen one. Where that fails, it is booted, which takes longer
    /// and leads to the same.
    pub fn resume(
        cache: &Cache,
        image: &Stage,
        frozen: &Stage,
        disk: &Path,
        spec: &Spec,
        accel: &Accel,
    ) -> Result<Self> {
        match Machine::try_resume(cache, image, frozen, disk, spec, accel) {
            Ok(machine) => Ok(machine),
            Err(error) => {
                note(format!("the frozen machine does not wake ({error:#}): booting it"));
                crate::disk::overlay(&accel.tools, &frozen.file(DISK), disk)?;
                Machine::boot(cache, image, disk, spec, accel)
            }
        }
    }

    fn try_resume(
        cache: &Cache,
        image: &Stage,
        frozen: &Stage,
        disk: &Path,
        spec: &Spec,
        accel: &Accel,
    ) -> Result<Self> {
        crate::disk::overlay(&accel.tools, &frozen.file(DISK), disk)?;
        let mut machine = Machine::start(cache, image, disk, spec, accel, true)?;
        let state = frozen.file(STATE);
        let state = state.to_str().context("the cache's path is not UTF-8")?;
        let zstd = accel.tools.shell("zstd")?;
        machine.qmp.load(&format!("{zstd} -q -dc {}", shlex::try_quote(state)?))?;
        // Its console starts again when it wakes: what it said before is not in there.
        machine.boots = 0;
        machine.connect(Duration::from_secs(60))?;
        Ok(machine)
    }

    /// A machine of its own for a scenario: nothing it writes is kept.
    pub fn throw_away(cache: &Cache, built: &Built, spec: &Spec) -> Result<Self> {
        let scratch = cache.scratch()?;
        let disk = scratch.path().join("disk.qcow2");
        // QEMU has the disk open from here on, and the machine has a folder of its own.
        Machine::resume(cache, &built.image, &built.frozen, &disk, spec, &built.accel)
    }

    fn start(
        cache: &Cache,
        image: &Stage,
        disk: &Path,
        spec: &Spec,
        accel: &Accel,
        incoming: bool,
    ) -> Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Machine::start_once(cache, image, disk, spec, accel, incoming) {
                // Somebody took the port between our looking and QEMU's taking.
                Err(error) if tries < 5 && format!("{error:#}").contains("host forwarding") => {}
                result => return result,
            }
        }
    }

    fn start_once(
        cache: &Cache,
        image: &Stage,
        disk: &Path,
        spec: &Spec,
        accel: &Accel,
        incoming: bool,
    ) -> Result<Self> {
        let dir = cache.scratch()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = accel.tools.qemu();
        command
            .args(description(spec, accel))
            .arg("-kernel")
            .arg(image.file("vmlinuz"))
            .arg("-initrd")
            .arg(image.file("initrd"))
            .arg("-drive")
            .arg(format!(
                "if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,file={}",
                comma_safe(disk)?
            ))
            .arg("-netdev")
            // restrict: the machine reaches nothing but the rig.
            .arg(format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"))
            .arg("-serial")
            .arg(format!("file:{}", comma_safe(&dir.path().join("console"))?))
            .args(["-chardev", "stdio,id=qmp,signal=off", "-mon", "chardev=qmp,mode=control"])
            .args(spec.lan.iter().flat_map(|lan| ["-netdev".to_owned(), lan.netdev()]))
            .args(incoming.then_some(["-incoming", "defer"]).iter().flatten())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.path().join("qemu.log"))?);
        let mut qemu = tie(&mut command, Signal::SIGKILL).spawn().context("cannot run QEMU")?;
        cleanup::watch(qemu.id());
        let (commands, answers) = qemu.stdin.take().zip(qemu.stdout.take()).context("QEMU has no pipes")?;
        let connected = Qmp::connect(commands, answers).and_then(|mut qmp| {
            // Until the machine has an address of its own there: it may be one of several that woke from one state.
            if spec.lan.is_some() {
                qmp.call("set_link", json!({ "name": "lan", "up": false }))?;
            }
            Ok(qmp)
        });
        match connected {
            Ok(qmp) => {
                let (image, tools) = (image.clone(), accel.tools.clone());
                Ok(Machine { qemu, qmp, dir, port, image, tools, boots: 0, ssh: None })
            }
            Err(error) => {
                end(&mut qemu);
                let log = fs::read_to_string(dir.path().join("qemu.log")).unwrap_or_default();
                Err(anyhow!("QEMU does not start: {}", log.trim()).context(error))
            }
        }
    }

    /// The connection to the machine.
    pub fn ssh(&self) -> Result<&Connection> {
        self.ssh.as_ref().context("the machine is not connected")
    }

    /// Waits until the machine has come up once more, and connects to it.
    pub fn wait_up(&mut self) -> Result<()> {
        let until = Instant::now() + BOOT;
        loop {
            let console = self.console();
            let seen = console.matches("rig: ready ").count();
            if seen > self.boots {
                self.boots = seen;
                break;
            }
            if let Some(at) = console.find("Kernel panic") {
                bail!("the machine's kernel panics:\n{}", &console[at..]);
            }
            if let Some(status) = self.qemu.try_wait()? {
                bail!("QEMU ended: {status}");
            }
            if Instant::now() > until {
                bail!(
                    "the machine did not come up in {} s; its console:\n{}",
                    BOOT.as_secs(),
                    last_lines(&console, 30)
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.connect(Duration::from_secs(60))
    }

    fn connect(&mut self, within: Duration) -> Result<()> {
        self.ssh = None;
        self.ssh = Some(Connection::open(self.dir.path(), &self.image, &self.tools, self.port, within)?);
        Ok(())
    }

    /// What the machine printed on its serial port.
    pub fn console(&self) -> String {
        let text = fs::read(self.dir.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Plugs the cable of [`Spec::lan`] in.
    pub fn link_up(&mut self) -> Result<()> {
        self.qmp.call("set_link", json!({ "name": "lan", "up": true })).map(drop)
    }

    /// Reboots in order.
    pub fn reboot(&mut self) -> Result<()> {
        self.go_down("systemctl reboot --no-block")
    }

    /// Reboots all but the kernel.
    pub fn soft_reboot(&mut self) -> Result<()> {
        self.go_down("systemctl soft-reboot --no-block")
    }

    /// Reboots into the kernel that was loaded by kexec.
    pub fn kexec(&mut self) -> Result<()> {
        self.go_down("systemctl kexec --no-block")
    }

    fn go_down(&mut self, command: &str) -> Result<()> {
        let ssh = self.ssh.take().context("the machine is not connected")?;
        // Without a look at how the command ends: the machine may be quicker to
        // close the connection. That it does not reboot would be seen below.
        let _ = ssh.output(command);
        drop(ssh);
        self.wait_up()
    }

    /// Reboots as if the power had gone: whatever was not yet on disk is lost.
    pub fn power_cut(&mut self) -> Result<()> {
        self.ssh = None;
        self.qmp.call("system_reset", json!({}))?;
        self.wait_up()
    }

    /// Ends the machine, leaving its state in `dir`, beside the disk that it
    /// ran with.
    pub fn freeze(mut self, dir: &Path) -> Result<()> {
        self.ssh()?.output("/usr/lib/rig/before-freeze")?;
        // The connection would be dead when the machine wakes.
        self.ssh = None;
        self.qmp.call("stop", json!({}))?;
        let state = dir.join(STATE);
        let state = state.to_str().context("the cache's path is not UTF-8")?;
        let zstd = self.tools.shell("zstd")?;
        self.qmp.save(&format!("{zstd} -q -1 -T0 -o {}", shlex::try_quote(state)?))?;
        let _ = self.qmp.call("quit", json!({}));
        self.qemu.wait()?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.ssh = None;
        end(&mut self.qemu);
    }
}

fn end(qemu: &mut Child) {
    let _ = qemu.kill();
    let _ = qemu.wait();
    cleanup::forget(qemu.id());
}

/// What the guest sees of the machine. A state can only be taken in by a
/// machine of the same description.
fn description(spec: &Spec, accel: &Accel) -> Vec<String> {
    // no_timer_check: on a busy host an emulated timer's first ticks come too late, and the kernel panics
    // ("IO-APIC + timer doesn't work").
    let mut cmdline = format!(
        "root=/dev/vda rw console=ttyS0 quiet no_timer_check systemd.show_status=no \
         mem=1792M apparmor=1 security=apparmor rig.gpus={} rig.driver={}",
        spec.gpus, spec.driver
    );
    for word in accel.kernel.iter().copied().chain(spec.kernel.iter().map(String::as_str)) {
        cmdline.push(' ');
        cmdline.push_str(word);
    }
    let arguments = [
        "-machine",
        "q35",
        "-accel",
        accel.name,
        "-cpu",
        accel.cpu,
        "-smp",
        "2",
        // The kernel may use 1792 MiB: what lies above is the fake GPUs' BAR0.
        "-m",
        "2048",
        "-nodefaults",
        "-display",
        "none",
        "-vga",
        "none",
        "-device",
        "virtio-blk-pci,drive=disk",
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
        "-device",
        "virtio-rng-pci",
        "-append",
        &cmdline,
    ];
    let mut arguments = arguments.map(str::to_owned).to_vec();
    if spec.lan.is_some() {
        // At a fixed place, which gives it its name in the guest.
        arguments.extend(["-device", "virtio-net-pci,netdev=lan,romfile=,addr=0x10"].map(str::to_owned));
    }
    arguments
}

/// Adds to a key all that a frozen state depends on.
pub fn key(key: Key, spec: &Spec, accel: &Accel) -> Key {
    key.with(description(spec, accel).join(" ")).with(&accel.fingerprint)
}

/// QEMU takes a comma in an option for its end, and two for one.
fn comma_safe(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a path is not UTF-8")?.replace(',', ",,"))
}

/// The last lines of a text.
pub fn last_lines(text: &str, n: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].join("\n")
}

/// Where a stage that freezes a machine puts its disk.
pub fn disk_in(dir: &Path) -> PathBuf {
    dir.join(DISK)
}
