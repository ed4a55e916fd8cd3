// SPDX-License-Identifier: MIT
//! What a reset needs beyond what a reload does.

use std::env;

use ledger::Step;
use step::{Action, Versions};

use crate::choose::Pick;
use crate::findings::Findings;

/// What resets.
const PROGRAM: &str = "nvidia-smi";

/// Whether the GPUs can be reset, and what that is in the plan.
pub(crate) fn assess(versions: &Versions, picked: &[Pick], findings: &mut Findings) -> Vec<Action> {
    if versions.loaded != versions.on_disk {
        findings.refuse(
            "the driver on disk is not the one that is loaded, and nvidia-smi is of the one on disk",
            "`nvidia-reload reload` loads that one, and starts the GPUs again, too; if a GPU has to be reset first, install the loaded version again, or reboot the machine",
        );
    }
    if picked.is_empty() {
        findings.refuse("the driver has no GPU", "`lspci -d 10de:` shows what is in the machine");
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
