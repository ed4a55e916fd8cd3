// SPDX-License-Identifier: MIT
//! Resets GPUs when only the driver itself uses them.
//!
//! NVML reports "reset required" and has no call that resets: NVIDIA's only way from user space is `nvidia-smi
//! --gpu-reset`. It needs the driver loaded and no client of the GPUs. nvidia_uvm and nvidia_drm count as clients even
//! when idle, so rmmod-chain has unloaded them before. A GPU is never reset by unbinding its PCI device: if it is in
//! use, that does not return.

#![forbid(unsafe_code)]

use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ledger::Step;
use step::Context;

/// NVIDIA's program.
const PROGRAM: &str = "nvidia-smi";

/// How long it may take to turn persistence mode off.
const MODE: Duration = Duration::from_secs(60);

/// How long a reset may take: sixteen GPUs, one after the other.
const RESET: Duration = Duration::from_secs(8 * 60);

fn main() -> ExitCode {
    // What was unloaded for the reset is rmmod-chain's to load again.
    step::main(Step::GpuReset, run, |_| Ok(()))
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reset.target")?;
    if !run.snapshot.reset {
        bail!("run {} is not for a reset: start nvidia-reset.target when it has ended", run.id);
    }
    if modules::loaded(&context.root, modules::DRIVER)?.is_none() {
        bail!("the driver is not loaded: nothing can be reset without it");
    }
    // All together: some that are linked can be reset in one command only.
    let chosen: Vec<&str> = run.snapshot.chosen.iter().map(|gpu| gpu.pci.as_str()).collect();
    let id = (!chosen.is_empty()).then(|| format!("--id={}", chosen.join(",")));
    let gpus: Vec<&str> = match &id {
        Some(_) => chosen,
        None => run.snapshot.gpus.iter().map(String::as_str).collect(),
    };
    context.status("turning persistence mode off");
    // A GPU in persistence mode has a client: the driver itself. The mode comes back with the
    // other settings.
    let status = nvidia_smi("--persistence-mode=0", id.as_deref(), MODE)?;
    if !status.success() {
        context.warn(format!("persistence mode stays as it is: {}", described(status)));
    }
    context.status(format!("resetting {}", gpus.join(", ")));
    let status = nvidia_smi("--gpu-reset", id.as_deref(), RESET)?;
    if !status.success() {
        bail!("{PROGRAM} --gpu-reset: {}; its own words are in the journal of this step", described(status));
    }
    let addresses: Vec<_> = gpus.iter().filter_map(|gpu| gpu.parse().ok()).collect();
    messages::note_reset(&context.root, &addresses).context("note that the GPUs were reset")?;
    context.info(format!("reset: {}", gpus.join(", ")));
    Ok(())
}

/// `id` limits it to some GPUs. What it prints goes to the journal, in its own words.
fn nvidia_smi(order: &str, id: Option<&str>, time: Duration) -> Result<ExitStatus> {
    bounded::run(Command::new(PROGRAM).arg(order).args(id), Instant::now() + time)
        .with_context(|| format!("run {PROGRAM} {order}, which belongs to NVIDIA's driver"))
}

fn described(status: ExitStatus) -> String {
    match status.code().and_then(meaning) {
        Some(meaning) => format!("{status} ({meaning})"),
        None => status.to_string(),
    }
}

/// The exit codes of nvidia-smi, which are NVML's (its manual page, RETURN VALUE; nvml.h).
fn meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        2 => "an argument it does not know",
        3 => "not supported by these GPUs",
        4 => "not permitted",
        6 => "it sees no GPU",
        8 => "a power cable is not attached",
        9 => "it sees no driver",
        10 => "the kernel sees an interrupt problem of a GPU",
        12 => "it does not find NVML's library",
        13 => "its NVML lacks a function: of another version",
        14 => "the infoROM is corrupted",
        15 => "a GPU has fallen off the bus or cannot be reached: reboot the machine",
        18 => "driver and library are of different versions: reload the driver",
        19 => "a GPU is still in use",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_code_has_its_meaning_beside_it() {
        assert_eq!(described(ExitStatus::from_raw(3 << 8)), "exit status: 3 (not supported by these GPUs)");
        assert_eq!(described(ExitStatus::from_raw(77 << 8)), "exit status: 77");
        assert_eq!(described(ExitStatus::from_raw(9)), "signal: 9 (SIGKILL)");
    }
}
