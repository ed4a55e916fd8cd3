// SPDX-License-Identifier: MIT
//! Child processes that do not outlive the rig.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::progress::Work;

/// Makes the child die with the rig, even when the rig is killed by SIGKILL.
/// The child must be started by a thread that lives as long as it is needed:
/// the kernel means the thread, not the process.
pub fn tie(command: &mut Command, signal: Signal) -> &mut Command {
    // SAFETY: prctl is async-signal-safe, and nothing else is called between
    // fork and exec.
    unsafe { command.pre_exec(move || nix::sys::prctl::set_pdeathsig(signal).map_err(Into::into)) }
}

/// The command as a person would type it, for messages.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    let line = words.join(" ");
    match line.char_indices().nth(160) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// Runs a command to its end. What it prints goes to `log` and, line by line,
/// to `work`; the last lines are in the error when it fails.
pub fn run_logged(command: &mut Command, work: &Work, log: &Path) -> Result<()> {
    let what = shown(command);
    let mut log_file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    writeln!(log_file, "+ {what}")?;

    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    tie(command, Signal::SIGTERM).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {what}"))?;
    // The command holds the pipe's writing ends: without this one there would
    // be no end of file.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let lines = work.follow(BufReader::new(Tee(reader, &mut log_file)));
    let status = child.wait()?;
    if !status.success() {
        let last: Vec<&str> = lines.iter().rev().take(15).rev().map(String::as_str).collect();
        bail!("{what}: {status}\n{}\n(the whole log: {})", last.join("\n"), log.display());
    }
    Ok(())
}

/// Runs a command that prints little, and returns its standard output.
pub fn output_of(command: &mut Command) -> Result<String> {
    let what = shown(command);
    let output = tie(command, Signal::SIGTERM)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {what}"))?;
    if !output.status.success() {
        bail!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads from the first, copying all of it to the second.
struct Tee<'a, R>(R, &'a mut File);

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.write_all(&buffer[..n])?;
        Ok(n)
    }
}

/// Cargo, as if the rig had not been started by cargo itself.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    without_cargo(&mut command);
    command
}

/// Takes away what `cargo run` tells the rig about the rig's own crate: build
/// scripts would take it for news, and build all over again.
pub fn without_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO" {
            command.env_remove(&name);
        }
    }
    command
}
