// SPDX-License-Identifier: MIT
//! A scenario: a script, or a folder with an executable `run`, that the
//! machine runs as root, and that may have the machine rebooted under it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::fleet::Lan;
use crate::machine::{Machine, Spec};
use crate::progress::note;
use crate::ssh::{self, Connection};
use crate::stages::{DRIVERS, Distro, checkout, into};

/// Where the scenario lies in the machine.
const FOLDER: &str = "root/scenario";
/// How the machine says that it could not take the scenario in: the rig's own
/// failure, and no exit status of the scenario.
const COPY_FAILED: i32 = 125;
/// How run-scenario says that the scenario asks for a reboot.
const REBOOT: i32 = 194;

/// Something to run in the machine.
#[derive(Debug)]
pub struct Scenario {
    path: PathBuf,
    name: OsString,
    /// The program, seen from the machine's root.
    program: String,
    header: Header,
}

/// What a scenario asks for in lines that start with `# rig:`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// GPUs of the machine.
    pub gpus: Option<u32>,
    /// The driver to start with.
    pub driver: Option<String>,
    /// More words for the kernel's command line.
    pub kernel: Vec<String>,
    /// How many machines there are: it runs in the first.
    pub machines: Option<u32>,
    /// Ansible is there.
    pub with_ansible: bool,
    /// The machine gets rpm, and the product's package for it.
    pub with_rpm: bool,
    /// It takes long, and runs only when it is named.
    pub by_name: bool,
    /// The distributions that `cargo rig test` runs it on; none for the usual one.
    distros: Vec<Distro>,
    /// Parts of it that are tests of their own, each named as its argument; they run only when they are named.
    pub parts: Vec<String>,
}

impl Header {
    /// The machine that it asks for.
    pub fn spec(&self, distro: Distro) -> Result<Spec> {
        let any = Spec::default();
        Ok(Spec {
            distro,
            gpus: self.gpus.unwrap_or(any.gpus),
            driver: self.driver.clone().unwrap_or(any.driver),
            kernel: self.kernel.clone(),
            lan: self.machines.map(Lan::of).transpose()?,
        })
    }

    /// The distributions that `cargo rig test` runs it on, at least one.
    pub fn distros(&self) -> Vec<Distro> {
        if self.distros.is_empty() { vec![Distro::default()] } else { self.distros.clone() }
    }
}

/// How a scenario ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It exited, with this status.
    Exit(i32),
    /// It took longer than it may.
    TimedOut,
}

impl Scenario {
    /// Looks at what is to be run.
    pub fn open(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).with_context(|| format!("cannot run {}", path.display()))?;
        let name = path.file_name().context("a folder's or a script's path, please")?.to_owned();
        let script = if path.is_dir() { path.join("run") } else { path.clone() };
        let metadata =
            fs::metadata(&script).with_context(|| format!("{} has no executable `run`", path.display()))?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            bail!("{} is not executable: chmod +x it", script.display());
        }
        let header = parse_header(&String::from_utf8_lossy(&fs::read(&script)?))
            .with_context(|| format!("in {}", script.display()))?;
        let in_folder = if path.is_dir() { "/run" } else { "" };
        let program = format!("/{FOLDER}/{}{in_folder}", name.to_str().context("its name is not UTF-8")?);
        Ok(Scenario { path, name, program, header })
    }

    /// What it asks for.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The program, as the machine sees it once it is there.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Runs it to its end, through all the reboots it asks for. As far
    /// as `limit` goes.
    pub fn run(
        &self,
        machine: &mut Machine,
        spec: &Spec,
        arguments: &[String],
        to: &Output,
        limit: &Limit,
    ) -> Result<End> {
        let until = limit.timeout.map(|timeout| Instant::now() + timeout);
        let mut words = vec![self.program.clone()];
        words.extend_from_slice(arguments);
        let words =
            shlex::try_join(words.iter().map(String::as_str)).context("an argument has a zero byte")?;
        let short = if limit.short { "1" } else { "" };
        // All in one go: under emulation each command costs half a second.
        let mut before = format!("{} || exit {COPY_FAILED}; ", ssh::receive()?);
        let mut archive = Some(ssh::pack(&self.archive())?);
        for boot in 1.. {
            let line = format!(
                "{before}RIG_BOOT={boot} RIG_GPUS={} RIG_DRIVER={} RIG_DISTRO={} RIG_SHORT={short} exec /usr/lib/rig/run-scenario {words}",
                spec.gpus, spec.driver, spec.distro
            );
            before.clear();
            let (stdin, tar) =
                archive.take().map_or((Stdio::null(), None), |(end, tar)| (end.into(), Some(tar)));
            let mut command = machine.ssh()?.command(&line);
            let (stdout, stderr) = to.streams()?;
            let child =
                command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().context("cannot run ssh")?;
            drop(command);
            let ended = wait(child, until)?;
            if let Some(mut tar) = tar {
                tar.wait()?;
            }
            let Some(status) = ended else {
                return Ok(End::TimedOut);
            };
            // A signal here can only have hit ssh itself.
            let status = status.code().context("ssh was killed")?;
            if status != REBOOT {
                return Ok(End::Exit(status));
            }
            match machine.ssh()?.output("cat /run/rig/request 2>/dev/null || :")?.trim() {
                "reboot" => machine.reboot().context("rebooting the machine")?,
                "soft-reboot" => machine.soft_reboot().context("rebooting the machine's userspace")?,
                "kexec" => machine.kexec().context("booting the machine by kexec")?,
                "power-cut" => machine.power_cut().context("cutting the machine's power")?,
                // Its own way of exiting, after all.
                _ => return Ok(End::Exit(status)),
            }
        }
        unreachable!("the loop has no end")
    }

    /// Copies it into the machine, and the library and tests/on-gpu with it: so an
    /// edit of those needs no new image.
    pub fn copy_into(&self, connection: &Connection) -> Result<()> {
        connection.send(&self.archive())
    }

    /// Arguments for tar.
    fn archive(&self) -> Vec<OsString> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let mut arguments: Vec<OsString> = vec!["--exclude=.git".into()];
        arguments.extend(into(folder, FOLDER, std::slice::from_ref(&self.name)));
        arguments.push(format!("--transform=s,^{FOLDER}/\\./lib\\.sh$,usr/share/rig/lib.sh,").into());
        arguments.push(format!("--transform=s,^{FOLDER}/\\./on-gpu,usr/share/rig/on-gpu,").into());
        arguments.extend(["-C".into(), checkout().join("tests/scenarios").into(), "./lib.sh".into()]);
        arguments.extend(["-C".into(), checkout().join("tests").into(), "./on-gpu".into()]);
        arguments.push(format!("--transform=s,^{FOLDER}/\\./fleet,usr/share/nvidia-reload/fleet,").into());
        arguments.extend(["-C".into(), checkout().into(), "./fleet".into()]);
        arguments
    }
}

/// How much of a scenario runs.
#[derive(Debug, Default)]
pub struct Limit {
    /// It may take that long, or any time.
    pub timeout: Option<Duration>,
    /// Only what belongs into the default suite.
    pub short: bool,
}

/// Where a scenario's output goes; what is not named goes to ours.
pub enum Output {
    /// Standard output to ours, standard error to ours.
    Ours,
    /// Both into this file.
    BothTo(File),
    /// Standard output into this file.
    StdoutTo(File),
}

impl Output {
    fn streams(&self) -> Result<(Stdio, Stdio)> {
        Ok(match self {
            Output::Ours => (Stdio::inherit(), Stdio::inherit()),
            Output::BothTo(file) => (file.try_clone()?.into(), file.try_clone()?.into()),
            Output::StdoutTo(file) => (file.try_clone()?.into(), Stdio::inherit()),
        })
    }
}

/// Waits for a child, killing it when its time is over.
fn wait(mut child: Child, until: Option<Instant>) -> Result<Option<ExitStatus>> {
    let Some(until) = until else {
        return Ok(Some(child.wait()?));
    };
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A driver that the machine has, or an error with those it has.
pub fn known_driver(version: &str) -> Result<String> {
    if DRIVERS.iter().any(|driver| driver.version == version) {
        return Ok(version.to_owned());
    }
    let known: Vec<&str> = DRIVERS.iter().map(|driver| driver.version).collect();
    bail!("no driver {version}; there are: {}", known.join(" "))
}

/// A number of GPUs that the machine can have.
pub fn possible_gpus(text: &str) -> Result<u32> {
    match text.parse() {
        Ok(gpus @ 1..=8) => Ok(gpus),
        _ => bail!("the machine can have 1 to 8 GPUs, not {text}"),
    }
}

/// A number of machines that can be side by side.
pub fn possible_machines(text: &str) -> Result<u32> {
    match text.parse() {
        Ok(machines @ 2..=9) => Ok(machines),
        _ => bail!("there can be 2 to 9 machines, not {text}"),
    }
}

fn parse_header(script: &str) -> Result<Header> {
    let mut header = Header::default();
    for line in script.lines().take(40) {
        let Some(words) = line.strip_prefix("# rig:") else {
            continue;
        };
        for word in words.split_whitespace() {
            match word.split_once('=') {
                Some(("timeout", seconds)) => {
                    let seconds =
                        seconds.parse().with_context(|| format!("not a number of seconds: {word}"))?;
                    header.timeout = Some(Duration::from_secs(seconds));
                }
                Some(("gpus", gpus)) => header.gpus = Some(possible_gpus(gpus)?),
                Some(("driver", version)) => header.driver = Some(known_driver(version)?),
                Some(("machines", machines)) => header.machines = Some(possible_machines(machines)?),
                Some(("with", "ansible")) => header.with_ansible = true,
                Some(("with", "rpm")) => header.with_rpm = true,
                Some(("kernel", argument)) => header.kernel.push(argument.to_owned()),
                None if word == "by-name" => header.by_name = true,
                Some(("distro", names)) => {
                    header.distros = names.split(',').map(str::parse).collect::<Result<_>>()?;
                }
                Some(("parts", names)) => header.parts.extend(names.split(',').map(str::to_owned)),
                _ => bail!(
                    "`# rig:` knows timeout=SECONDS, gpus=N, driver=VERSION, kernel=ARGUMENT, by-name, \
                     distro=NAME,…, parts=NAME,…, machines=N and with=ansible|rpm, not {word}"
                ),
            }
        }
    }
    Ok(header)
}

/// Says what went wrong with the machine itself, where a scenario timed out:
/// the state of the machine, as far as it still answers.
pub fn diagnose(machine: &Machine) -> String {
    let Ok(ssh) = machine.ssh() else {
        return String::new();
    };
    let mut command = ssh.command("timeout 20 /usr/lib/rig/diagnose 2>&1");
    let output = command.stdin(Stdio::null()).output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            note(format!("the machine says no more: {error}"));
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read() {
        let header = parse_header(
            "#!/bin/bash\n# What it shows.\n# rig: timeout=600 gpus=2\n\
             # rig: driver=550.163.01 kernel=a.b=0 distro=debian12,debian13 by-name\n# rig: parts=a,b\n\
             # rig: machines=3 with=ansible\n# rig: with=rpm\nset -e\n",
        );
        assert_eq!(
            header.ok(),
            Some(Header {
                timeout: Some(Duration::from_secs(600)),
                gpus: Some(2),
                driver: Some("550.163.01".into()),
                kernel: vec!["a.b=0".into()],
                machines: Some(3),
                with_ansible: true,
                with_rpm: true,
                by_name: true,
                distros: vec![Distro::Debian12, Distro::Debian13],
                parts: vec!["a".into(), "b".into()],
            })
        );
    }

    #[test]
    fn a_wrong_header_is_an_error() {
        for line in [
            "timeout=soon",
            "gpus=9",
            "gpus=0",
            "driver=1.2.3",
            "colour=red",
            "gpus",
            "distro=plan9",
            "machines=1",
            "with=x",
        ] {
            assert!(parse_header(&format!("# rig: {line}\n")).is_err(), "{line}");
        }
    }
}
