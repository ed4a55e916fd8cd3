//! What a reset needs beyond what a reload does.

use std::env;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use ledger::Step;
use step::{Action, Context, RESET_REQUEST, Versions};

use crate::choose::Pick;
use crate::findings::Findings;

/// What resets.
const PROGRAM: &str = "nvidia-smi";

/// Of which GPUs the run that begins is a reset, as they were named, none for all; none at all if it is
/// a reload.
///
/// # Errors
/// It cannot be told.
pub(crate) fn asked(context: &Context) -> Result<Option<Vec<String>>> {
    let path = context.root.path(RESET_REQUEST);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.lines().map(str::to_owned).collect())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Takes the request away: the run that it was for is over, or has not begun.
///
/// # Errors
/// It is still there.
pub(crate) fn forget(context: &Context) -> Result<()> {
    let path = context.root.path(RESET_REQUEST);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether the GPUs can be reset, and what that is in the plan.
pub(crate) fn assess(versions: &Versions, picked: &[Pick], findings: &mut Findings) -> Vec<Action> {
    if versions.loaded != versions.on_disk {
        findings.refuse(
            "the driver on disk is not the one that is loaded, and nvidia-smi is of the one on disk",
            "`nvidia-reload reload` loads that one, and starts the GPUs anew as well",
        );
    }
    if picked.is_empty() {
        findings.refuse("the driver serves no GPU", "`lspci -d 10de:` shows what is in the machine");
    }
    let paths = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&paths).any(|directory| directory.join(PROGRAM).is_file()) {
        findings.refuse(format!("{PROGRAM} is not installed, and nothing else resets a GPU"), "install it");
    }
    let action = |pick: &Pick| Action {
        step: Step::GpuReset,
        object: format!("GPU {}", pick.pci),
        what: "reset".into(),
        why: pick.why.clone(),
        pids: Vec::new(),
        comes_back: true,
    };
    picked.iter().map(action).collect()
}
