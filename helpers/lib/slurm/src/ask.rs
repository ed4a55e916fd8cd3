// SPDX-License-Identifier: MIT
//! Asks Slurm: by its own programs, the ones that belong to the `slurmd` that runs.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use files::check_owner;
use holders::SlurmDaemon;
use step::{Root, monotonic_usec};

use crate::PATH;
use crate::answer::{Answer, BETWEEN, COLUMNS, jobs, node};

/// How long each of the questions may take: Slurm's own MessageTimeout is 10 s.
const TIME: Duration = Duration::from_secs(12);

/// The most that is read of an answer: some ten thousand jobs on one node.
const MOST: usize = 16 << 20;

/// As wide as a column is printed; what is longer is cut off.
const WIDTH: usize = 128;

/// Asks Slurm about this node and leaves the answer for what started its unit.
///
/// # Errors
/// The answer cannot be written, or there is no `slurmd`.
pub fn answer(root: &Root) -> Result<()> {
    let daemon = holders::slurm(root)?.and_then(|slurm| slurm.daemon).context("slurmd does not run")?;
    let mut answer = Answer::default();
    if let Err(error) = fill(root, &daemon, &mut answer) {
        answer.error = Some(format!("{error:#}"));
    }
    answer.written_usec = monotonic_usec();
    let path = root.path(PATH);
    let text = serde_json::to_vec(&answer).context("encode the answer")?;
    files::replace(&path, 0o600, &text).with_context(|| format!("write {}", path.display()))
}

fn fill(root: &Root, daemon: &SlurmDaemon, answer: &mut Answer) -> Result<()> {
    let name = match &daemon.node {
        Some(name) => name.clone(),
        None => own_name(root, daemon)?,
    };
    let name = answer.node.insert(name).clone();
    let columns: Vec<String> = COLUMNS.iter().map(|column| format!("{column}:{WIDTH}{BETWEEN}")).collect();
    let listed = ask(
        daemon,
        "squeue",
        &[
            "--all",
            "--local",
            "--noheader",
            &format!("--nodelist={name}"),
            &format!("--Format={}", columns.join(",")),
        ],
    )?;
    let about = format!("--format=%T{BETWEEN}%G");
    let state = ask(
        daemon,
        "sinfo",
        &["--all", "--local", "--noheader", "--Node", &format!("--nodes={name}"), &about],
    )?;
    let node = node(&state);
    answer.is_closed = node.is_closed;
    answer.jobs = jobs(&listed, node);
    Ok(())
}

/// The node's name in Slurm's configuration; of one that joined without being in there, the machine's own.
fn own_name(root: &Root, daemon: &SlurmDaemon) -> Result<String> {
    let said = ask(daemon, "scontrol", &["show", "aliases"]).unwrap_or_default();
    if let Some(name) = said.split_whitespace().next() {
        return Ok(name.to_owned());
    }
    let path = root.path("/proc/sys/kernel/hostname");
    let host = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(host.trim().split('.').next().unwrap_or_default().to_owned())
}

/// What one of Slurm's programs prints.
fn ask(daemon: &SlurmDaemon, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(of(daemon, program));
    command.args(arguments).env("LC_ALL", "C");
    if let Some(config) = &daemon.config {
        command.env("SLURM_CONF", config);
    }
    let (status, output) = bounded::child(&mut command, Instant::now() + TIME, MOST)
        .with_context(|| format!("run {program}"))?;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    String::from_utf8(output).with_context(|| format!("understand what {program} prints"))
}

/// The program that came with `slurmd`: where that is installed in a place of its own, only root may have put it
/// there. Else the one in the system's own directories.
fn of(daemon: &SlurmDaemon, program: &str) -> PathBuf {
    let beside = daemon
        .program
        .parent()
        .and_then(|directory| directory.parent())
        .map(|prefix| prefix.join("bin").join(program));
    beside.filter(|path| check_owner(path).is_ok()).unwrap_or_else(|| PathBuf::from(program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A place with Slurm's programs, scripts that say what `script` does.
    fn installed(scripts: &[(&str, &str)]) -> (tempfile::TempDir, Root, SlurmDaemon) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().canonicalize().expect("is there");
        for place in ["bin", "run/nvidia-reload", "proc/sys/kernel"] {
            fs::create_dir_all(path.join(place)).expect("creates");
        }
        fs::write(path.join("proc/sys/kernel/hostname"), "n1.example\n").expect("writes");
        for (name, script) in scripts {
            golden::script(&path.join("bin").join(name), script);
        }
        let daemon = SlurmDaemon {
            program: path.join("sbin/slurmd"),
            config: Some("/srv/slurm.conf".into()),
            ..SlurmDaemon::default()
        };
        let root = Root::at(&path);
        (directory, root, daemon)
    }

    #[test]
    fn slurm_is_asked_for_its_own_node() {
        let (_directory, root, daemon) = installed(&[
            ("scontrol", "[ $SLURM_CONF = /srv/slurm.conf ] && echo node-1"),
            ("squeue", "echo \"$@\" | grep -q -e --nodelist=node-1 && echo '7|ada|RUNNING|OK|gres/gpu:1'"),
            ("sinfo", "echo 'drained|gpu:2'"),
        ]);
        let mut answer = Answer::default();
        fill(&root, &daemon, &mut answer).expect("is known");
        assert_eq!((answer.node.as_deref(), answer.is_closed), (Some("node-1"), true));
        assert_eq!(answer.jobs.len(), 1);
    }

    #[test]
    fn what_fails_is_named_and_the_name_of_the_node_is_known_all_the_same() {
        let (_directory, root, daemon) =
            installed(&[("scontrol", "exit 1"), ("squeue", "exit 1"), ("sinfo", "echo idle|gpu:1")]);
        let mut answer = Answer::default();
        let error = fill(&root, &daemon, &mut answer).expect_err("squeue fails").to_string();
        assert_eq!(
            (error.as_str(), answer.node.as_deref()),
            ("squeue ended with exit status: 1", Some("n1"))
        );
        let named = SlurmDaemon { node: Some("other".into()), ..daemon };
        fill(&root, &named, &mut answer).expect_err("squeue fails");
        assert_eq!(answer.node.as_deref(), Some("other"));
    }
}
