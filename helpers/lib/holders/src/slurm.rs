// SPDX-License-Identifier: MIT
//! Slurm as its processes show it, whichever way it tracks those of its jobs: control groups of its own, or
//! (`proctrack/linuxproc`, `pgid`) none, where they are children of `slurmstepd` in the group of `slurmd`.
//!
//! Its programs are known by their executable and by root's running them: what a process calls itself is any
//! user's choice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::CWD;
use step::{Root, is_slurmd};

use crate::cgroup::{is_roots, owner_where};
use crate::model::Owner;
use crate::process::{Process, is_started_by_root};
use crate::text::escape;
use crate::walk::{open_dir, processes};

/// What stands for the number of a job that is not known.
const UNKNOWN: &str = "unknown";

/// Slurm on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slurm {
    /// What starts the jobs, while it runs.
    pub daemon: Option<SlurmDaemon>,
    /// The jobs that have processes here, by number, with these.
    pub jobs: BTreeMap<String, Vec<i32>>,
}

/// The process `slurmd`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlurmDaemon {
    /// The service it is; none where it was started in another way.
    pub unit: Option<String>,
    /// Its executable.
    pub program: PathBuf,
    /// The node's name, where its command line says that.
    pub node: Option<String>,
    /// The file of its configuration, where its command line or its environment says that.
    pub config: Option<String>,
}

/// The command that keeps new jobs away from a node; the node's own name is put in by the shell where `node` is
/// none.
pub fn drain_command(node: Option<&str>) -> String {
    let node = node.unwrap_or("$(hostname -s)");
    format!("`scontrol update NodeName={node} State=DRAIN Reason=\"driver reload\"`")
}

/// Slurm on this machine; none where neither `slurmd` nor a step of a job runs.
///
/// # Errors
/// `/proc` cannot be read.
pub fn slurm(root: &Root) -> crate::Result<Option<Slurm>> {
    let path = root.path("/proc");
    let groups = root.path("/sys/fs/cgroup");
    let pids = processes(&path)?;
    let proc = open_dir(CWD, &path).map_err(|error| crate::Error::Read { path, source: error.into() })?;
    // Ends and starts of processes meanwhile are those of a moment later.
    let open = |pid: &i32| Some((*pid, Process::open(&proc, *pid).ok()?));
    let programs: Vec<(i32, Process, Program)> = pids
        .iter()
        .filter_map(open)
        .filter_map(|(pid, process)| Program::of(&process).map(|program| (pid, process, program)))
        .filter(|(_, process, _)| !matches!(owner_of(process, &groups), Some(Owner::Container(_))))
        .collect();
    if programs.is_empty() {
        return Ok(None);
    }
    let mut slurm = Slurm::default();
    for (pid, process) in pids.iter().filter_map(open) {
        if let Some(Owner::SlurmStep { job, .. }) = owner_of(&process, &groups) {
            slurm.jobs.entry(job).or_default().push(pid);
        }
    }
    for (pid, process, program) in programs {
        match program {
            Program::Daemon(executable) => slurm.daemon = Some(daemon(&process, &groups, executable)),
            Program::Step => {
                let (job, _) = step_of(&process);
                let pids = slurm.jobs.entry(job).or_default();
                if !pids.contains(&pid) {
                    pids.push(pid);
                }
            }
        }
    }
    Ok(Some(slurm))
}

/// The job that a process is of, if it is of one.
pub fn job_of(root: &Root, pid: i32) -> Option<String> {
    let proc = open_dir(CWD, root.path("/proc")).ok()?;
    let process = Process::open(&proc, pid).ok()?;
    let owner = match owner_of(&process, &root.path("/sys/fs/cgroup")) {
        Some(Owner::Container(_)) | None => step_above(&proc, pid),
        Some(owner) => Some(owner_with_slurm(&proc, &process, pid, owner)),
    };
    match owner {
        Some(Owner::SlurmStep { job, .. }) => Some(job),
        _ => None,
    }
}

/// The owner of a process that by its control group has `owner`: also a job's, where that has none.
pub(crate) fn owner_with_slurm(proc: &OwnedFd, process: &Process, pid: i32, owner: Owner) -> Owner {
    if matches!(owner, Owner::Container(_) | Owner::SlurmStep { .. }) {
        return owner;
    }
    if let Some(owner) = step_above(proc, pid) {
        return owner;
    }
    match &owner {
        // What is left of a job whose step is gone, or a script of the daemon's that belongs to one.
        Owner::SystemUnit { unit, .. } if is_slurmd(unit) && Program::of(process).is_none() => {
            Owner::SlurmStep { job: UNKNOWN.to_owned(), step: UNKNOWN.to_owned() }
        }
        _ => owner,
    }
}

/// The step of a job that a process is of by its parents.
fn step_above(proc: &OwnedFd, pid: i32) -> Option<Owner> {
    let mut at = pid;
    // A tree that is no tree must end too.
    for _ in 0..1000 {
        let process = Process::open(proc.as_fd(), at).ok()?;
        if matches!(Program::of(&process), Some(Program::Step)) {
            let (job, step) = step_of(&process);
            return Some(Owner::SlurmStep { job, step });
        }
        at = process.stat()?.ppid;
        if at <= 1 {
            return None;
        }
    }
    None
}

/// One of Slurm's programs on a node.
#[derive(Debug)]
enum Program {
    Daemon(PathBuf),
    Step,
}

impl Program {
    fn of(process: &Process) -> Option<Self> {
        let executable = process.executable()?;
        let name = executable.file_name()?.to_str()?;
        // Debian has them as slurmd-wlm and slurmstepd-wlm. After an upgrade the file is another.
        let name = name.strip_suffix(" (deleted)").unwrap_or(name);
        let program = match name.split('-').next()? {
            "slurmd" => Self::Daemon(executable),
            // One without a job holds the control group of all.
            "slurmstepd" if process.command().get(1).is_none_or(|word| word != "infinity") => Self::Step,
            _ => return None,
        };
        is_started_by_root(&process.read("status", 8192).ok()?).then_some(program)
    }
}

fn owner_of(process: &Process, groups: &Path) -> Option<Owner> {
    let text = process.read("cgroup", 64 << 10).ok()?;
    Some(owner_where(&text, |group| is_roots(groups, group)))
}

/// Job and step as `slurmstepd`, by whichever name it goes, writes them into its command line:
/// `slurmstepd: [7.batch]`.
fn step_of(process: &Process) -> (String, String) {
    let line = process.command().join(" ");
    let named = line
        .split_once(": [")
        .and_then(|(_, rest)| rest.split_once(']')?.0.split_once('.'))
        .filter(|(job, _)| job.starts_with(|first: char| first.is_ascii_digit()));
    let (job, step) = named.unwrap_or((UNKNOWN, UNKNOWN));
    (job.to_owned(), step.to_owned())
}

fn daemon(process: &Process, groups: &Path, program: PathBuf) -> SlurmDaemon {
    let unit = match owner_of(process, groups) {
        Some(Owner::SystemUnit { unit, .. }) if unit.ends_with(".service") => Some(unit),
        _ => None,
    };
    let command = process.command();
    let in_environment = || {
        let environment = process.read("environ", 64 << 10).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find_map(|variable| variable.strip_prefix(b"SLURM_CONF=").map(escape))
    };
    SlurmDaemon {
        unit,
        program,
        node: option(&command, 'N'),
        config: option(&command, 'f').or_else(in_environment),
    }
}

/// The value of an option of one letter: `-N NAME`, `-NNAME`.
fn option(command: &[String], letter: char) -> Option<String> {
    let mut words = command.iter().skip(1);
    while let Some(word) = words.next() {
        match word.strip_prefix('-').and_then(|rest| rest.strip_prefix(letter)) {
            Some("") => return words.next().cloned(),
            Some(value) => return Some(value.to_owned()),
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A machine's processes: number, parent, user, executable, command line, control group.
    fn machine(processes: &[(i32, i32, u32, &str, &str, &str)]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for (pid, ppid, uid, executable, command, group) in processes {
            let at = root.path(format!("/proc/{pid}"));
            fs::create_dir_all(&at).expect("creates");
            let stat = format!("{pid} (x) S {ppid} 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 55 0 0\n");
            fs::write(at.join("stat"), stat).expect("writes");
            fs::write(at.join("status"), format!("Uid:\t{uid}\t0\t0\t0\n")).expect("writes");
            fs::write(at.join("cmdline"), command.replace(' ', "\0")).expect("writes");
            fs::write(at.join("cgroup"), format!("0::{group}\n")).expect("writes");
            fs::write(at.join("environ"), "A=b\0SLURM_CONF=/srv/slurm.conf\0").expect("writes");
            symlink(executable, at.join("exe")).expect("links");
        }
        (directory, root)
    }

    const UNIT: &str = "/system.slice/slurmd.service";

    #[test]
    fn its_programs_are_roots_and_known_by_their_files() {
        let (_directory, root) = machine(&[
            (7, 1, 0, "/opt/slurm/sbin/slurmd", "slurmd -D -N n7", UNIT),
            (8, 1, 0, "/usr/sbin/slurmstepd-wlm (deleted)", "slurmstepd-wlm: [12.batch]", UNIT),
            (9, 1, 0, "/usr/sbin/slurmstepd", "/usr/sbin/slurmstepd infinity", "/x/slurmstepd.scope"),
            (10, 1, 1000, "/usr/bin/sleep", "sleep", "/x/slurmstepd.scope/job_13/step_0/user/task_0"),
        ]);
        let slurm = slurm(&root).expect("looks").expect("is there");
        let daemon = slurm.daemon.expect("runs");
        assert_eq!(
            (daemon.unit.as_deref(), daemon.node.as_deref(), daemon.config.as_deref()),
            (Some("slurmd.service"), Some("n7"), Some("/srv/slurm.conf"))
        );
        assert_eq!(daemon.program, Path::new("/opt/slurm/sbin/slurmd"));
        let jobs: Vec<(&str, &[i32])> =
            slurm.jobs.iter().map(|(job, pids)| (job.as_str(), pids.as_slice())).collect();
        assert_eq!(jobs, [("12", [8].as_slice()), ("13", [10].as_slice())]);
    }

    #[test]
    fn what_only_looks_like_slurm_is_none() {
        let id = "0123456789abcdef".repeat(4);
        let container = format!("/system.slice/docker-{id}.scope");
        let (_directory, root) = machine(&[
            // A set-uid program by the name of a link.
            (7, 1, 1000, "/usr/bin/su", "slurmstepd: [1.0]", "/"),
            // A user's own file, and root's in a container.
            (8, 1, 1000, "/home/a/slurmstepd", "slurmstepd: [1.0]", "/"),
            (9, 1, 0, "/usr/sbin/slurmd", "slurmd", &container),
        ]);
        assert_eq!(slurm(&root).expect("looks"), None);
    }

    #[test]
    fn a_process_is_of_the_step_above_it() {
        let (_directory, root) = machine(&[
            (7, 1, 0, "/usr/sbin/slurmd", "slurmd", UNIT),
            (8, 1, 0, "/usr/sbin/slurmstepd", "slurmstepd: [12.0]", UNIT),
            (9, 8, 1000, "/bin/sh", "sh", UNIT),
            (10, 9, 1000, "/usr/bin/train", "train", UNIT),
            // It outlived its step.
            (11, 1, 1000, "/usr/bin/train", "train", UNIT),
            (12, 1, 1000, "/usr/bin/train", "train", "/system.slice/cron.service"),
        ]);
        let proc = open_dir(CWD, root.path("/proc").as_path()).expect("opens");
        let of = |pid: i32| {
            let process = Process::open(&proc, pid).expect("opens");
            let owner = owner_of(&process, Path::new("/none")).expect("has one");
            owner_with_slurm(&proc, &process, pid, owner)
        };
        let step = |job: &str, step: &str| Owner::SlurmStep { job: job.into(), step: step.into() };
        assert_eq!(of(8), step("12", "0"));
        assert_eq!(of(10), step("12", "0"));
        assert_eq!(of(11), step(UNKNOWN, UNKNOWN));
        assert!(matches!(of(7), Owner::SystemUnit { unit, .. } if unit == "slurmd.service"));
        assert!(matches!(of(12), Owner::SystemUnit { unit, .. } if unit == "cron.service"));
    }

    #[test]
    fn options_of_one_letter() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(option(&words("slurmd -D -N a"), 'N').as_deref(), Some("a"));
        assert_eq!(option(&words("slurmd -Na -D"), 'N').as_deref(), Some("a"));
        assert_eq!(option(&words("slurmd -D"), 'N'), None);
    }
}
