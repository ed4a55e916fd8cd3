// SPDX-License-Identifier: MIT
//! `cargo rig demo`: a reload, as somebody without a GPU can watch it.

use std::io::IsTerminal;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::machine::Machine;
use crate::scenario::Scenario;

/// Runs the demo in the machine; its exit status.
pub fn demo(machine: &Machine) -> Result<i32> {
    let scenario = Scenario::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo"))?;
    let ssh = machine.ssh()?;
    scenario.copy_into(ssh)?;
    // Not by run-scenario, whose pipes would hide the terminal: the product
    // shows its progress live where somebody looks on.
    let line = format!("exec {}", scenario.program());
    let mut command = if std::io::stdout().is_terminal() { ssh.terminal(&line) } else { ssh.command(&line) };
    let status = command.stdin(Stdio::null()).status().context("cannot run ssh")?;
    status.code().context("ssh was killed")
}
