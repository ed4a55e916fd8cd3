// SPDX-License-Identifier: MIT
//! Whether the loaded driver works, as the helper of that step finds it.

use std::process::Command;
use std::time::Duration;

use step::{Exit, Grade, Root, VERIFIED_SCHEMA, Verified};

use crate::fault::{Fault, Result};
use crate::helper;

/// The helper that knows. NVML is asked by it, in yet another process.
const HELPER: &str = "/usr/libexec/nvidia-reload/verify";

/// NVML has a minute, the journal one, a smoke test ten.
const PATIENCE: Duration = Duration::from_secs(900);

/// Looks; with `smoke`, has the configured test run.
///
/// # Errors
/// The helper is missing, fails, or says what this version does not understand.
pub fn verify(root: &Root, smoke: bool) -> Result<Verified> {
    let helper = root.path(HELPER);
    let mut command = Command::new(&helper);
    command.arg("check").args(smoke.then_some("--smoke"));
    let verified: Verified = helper::ask(&mut command, PATIENCE, Exit::Failed)?;
    if verified.schema != VERIFIED_SCHEMA {
        let error =
            format!("{} check has schema {:?}, not {VERIFIED_SCHEMA:?}", helper.display(), verified.schema);
        return Err(Fault::new(Exit::Failed, error, "install command and helpers of one version"));
    }
    Ok(verified)
}

/// What `nvidia-reload verify` exits with.
pub fn exit(verified: &Verified) -> Exit {
    match verified.grade {
        Grade::Ok | Grade::Note => Exit::Done,
        Grade::Failed => Exit::Failed,
        Grade::RebootRequired => Exit::RebootRequired,
    }
}
