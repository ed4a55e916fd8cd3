// SPDX-License-Identifier: MIT
//! How long the search for holders takes on a machine full of processes, beside `fuser` and `lsof`.
//! On the host itself: it needs no driver, only `/proc`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::command::{cargo, tie};
use crate::progress::note;
use crate::stages;

/// How many processes there are beside those of the host, each with twenty descriptors.
pub const CROWDS: [u32; 2] = [5_000, 20_000];

/// What else may run beside a crowd: the rig, the machine, the measurement.
const OTHERS: u64 = 500;

/// How many processes may run in the control group that this one is in; none where nothing limits them.
fn most_processes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limit = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let hierarchy = match controllers {
            "" => "",
            "pids" => "pids",
            _ => return None,
        };
        let path = Path::new("/sys/fs/cgroup").join(hierarchy).join(path.trim_start_matches('/'));
        fs::read_to_string(path.join("pids.max")).ok()?.trim().parse().ok()
    };
    groups.lines().filter_map(limit).min()
}

/// Times are in seconds, the best of five.
#[derive(Debug, Deserialize, Serialize)]
pub struct Measured {
    /// All processes of the host, those of the crowd among them.
    pub processes: u32,
    /// The search.
    pub scan: f64,
    /// `fuser` on one node.
    pub fuser: f64,
    /// `lsof` on one node.
    pub lsof: f64,
    /// The answer where the references show that there is no holder.
    pub fast_path: f64,
    /// Peak memory of the search, in bytes.
    pub peak_memory: u64,
}

/// What users can make large, as large as it is: the best of three, the most memory of three.
#[derive(Debug, Deserialize, Serialize)]
pub struct Large {
    /// What it is.
    pub name: String,
    /// The search and the account of the references, in seconds.
    pub search: f64,
    /// `fuser` on the same node.
    pub fuser: f64,
    /// Peak memory of the search, in bytes.
    pub peak_memory: u64,
    /// That of `fuser`.
    pub fuser_memory: u64,
}

/// Everything that is measured here.
#[derive(Debug, Default, Serialize)]
pub struct Searches {
    /// With each of the crowds.
    pub crowds: Vec<Measured>,
    /// What one user can do.
    pub large: Vec<Large>,
}

/// Measures all.
pub fn measure(cache: &Cache) -> Result<Searches> {
    let most = most_processes();
    let mut crowds = Vec::new();
    for size in CROWDS {
        match most.filter(|most| *most < u64::from(size) + OTHERS) {
            Some(most) => note(format!("no search among {size} processes: here at most {most} may run")),
            None => crowds.push(with(cache, size)?),
        }
    }
    note("searching among what users can make large");
    let text = measurement("what_users_can_make_large")?;
    let large = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).with_context(|| format!("the measurement printed: {line}")));
    Ok(Searches { crowds, large: large.collect::<Result<_>>()? })
}

fn with(cache: &Cache, size: u32) -> Result<Measured> {
    note(format!("searching among {size} processes more"));
    let _crowd = Crowd::start(cache, size)?;
    let text = measurement("compared_with_fuser_and_lsof")?;
    let line = text.lines().find(|line| line.starts_with('{')).context("the measurement printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("the measurement printed: {line}"))
}

/// What a measurement of the crate `holders` prints.
fn measurement(name: &str) -> Result<String> {
    let output = cargo()
        .args(["test", "--quiet", "--release", "--package", "holders", "--lib", "--"])
        .args(["--ignored", "--nocapture", name])
        .current_dir(stages::checkout())
        .output()
        .context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the measurement: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text.into_owned())
}

/// Processes that wait, until this is dropped.
struct Crowd(Child);

impl Crowd {
    fn start(cache: &Cache, size: u32) -> Result<Self> {
        let hold = stages::hold(cache)?.file_like("hold", "")?;
        // With the standard streams, twenty descriptors.
        let mut command = Command::new(hold);
        command.args(["--fds=16", &format!("--children={size}"), "/dev/null"]).process_group(0);
        let child = tie(&mut command, Signal::SIGKILL)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the crowd")?;
        let mut crowd = Crowd(child);
        let mut ready = String::new();
        let stdout = crowd.0.stdout.take().context("it has a standard output")?;
        BufReader::new(stdout).read_line(&mut ready).context("cannot read from the crowd")?;
        if !ready.starts_with("ready") {
            bail!("the crowd did not come up; is there memory and kernel.pid_max for {size} processes?");
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Not yet waited for, so the group is its own.
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}
