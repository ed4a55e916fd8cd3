//! What a reset needs beyond what a reload does.

use std::env;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use ledger::Step;
use step::{Action, Context, Versions};

use crate::findings::Findings;

/// There while nvidia-reset.target has its run: nvidia-reload-reset-request.service makes it.
const REQUEST: &str = "/run/nvidia-reload/reset";
/// What resets.
const PROGRAM: &str = "nvidia-smi";

/// Whether the run that begins is a reset.
///
/// # Errors
/// It cannot be told.
pub(crate) fn is_asked(context: &Context) -> Result<bool> {
    let path = context.root.path(REQUEST);
    path.try_exists().with_context(|| format!("look for {}", path.display()))
}

/// Takes the request away: the run that it was for is over, or has not begun.
///
/// # Errors
/// It is still there.
pub(crate) fn forget(context: &Context) -> Result<()> {
    let path = context.root.path(REQUEST);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether the GPUs can be reset, and what that is in the plan.
pub(crate) fn assess(versions: &Versions, gpus: &[String], findings: &mut Findings) -> Vec<Action> {
    if versions.loaded != versions.on_disk {
        findings.refuse(
            "the driver on disk is not the one that is loaded, and nvidia-smi is of the one on disk",
            "`nvidia-reload reload` loads that one, and starts the GPUs anew as well",
        );
    }
    if gpus.is_empty() {
        findings.refuse("the driver serves no GPU", "`lspci -d 10de:` shows what is in the machine");
    }
    let paths = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&paths).any(|directory| directory.join(PROGRAM).is_file()) {
        findings.refuse(format!("{PROGRAM} is not installed, and nothing else resets a GPU"), "install it");
    }
    let action = |gpu: &String| Action {
        step: Step::GpuReset,
        object: format!("GPU {gpu}"),
        what: "reset".into(),
        why: "asked for".into(),
        pids: Vec::new(),
        comes_back: true,
    };
    gpus.iter().map(action).collect()
}
