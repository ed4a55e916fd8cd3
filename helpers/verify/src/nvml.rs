// SPDX-License-Identifier: MIT
//! Whether programs that use the driver will get on with it: NVML's own word.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use gpu::{Answer, HELPER, State, ask_state};
use ledger::Gpu;
use messages::read_log;
use step::Context;
use xid::Evidence;

use crate::gpus::{self, Fabric};
use step::Grade;

/// NVML starts in tens of milliseconds; on a machine with many GPUs that wake up, in seconds.
const TIME: Duration = Duration::from_secs(60);

/// Asks, in a process of its own; none if it did not answer. Only of the library that programs get:
/// whether that fits the driver is the question.
pub(crate) fn ask() -> Result<Option<State>> {
    ask_state(Path::new(HELPER), None, false, TIME)
}

/// What there is to say where NVML did not answer.
pub(crate) fn hung() -> String {
    format!("NVML did not answer in {} seconds", TIME.as_secs())
}

/// Whether the answer is that of a driver that works, and every GPU is healthy: those of `before`, and those
/// on the bus. An error from before the driver was loaded, or from before the run, is not the new driver's.
pub(crate) fn judge(context: &Context, before: &[Gpu], state: Option<&State>) -> Result<()> {
    let Some(state) = state else { bail!(hung()) };
    // Where nothing makes the nodes (nvidia-modprobe, udev), NVML saw no driver before the run either.
    let control = context.root.path("/dev/nvidiactl");
    if let Answer::NoLibrary { reason } = &state.nvml {
        context.warn(format!("NVML cannot be asked, its library is not installed: {reason}"));
    } else if state.nvml == Answer::NotLoaded && before.is_empty() && !control.exists() {
        context.warn(format!("NVML cannot be asked: there is no {}", control.display()));
    } else {
        context.info(format!("NVML works: {}", works(&state.nvml)?));
    }
    let log = read_log(&context.root)?;
    let judged = health::judge(&context.root, &log, Some(state), &ignored(context))?;
    let news = log.news_since();
    let is_new = |evidence: &Evidence| evidence.usec.is_none_or(|usec| usec > news);
    // Without its word the GPUs that were there before cannot be compared.
    let before = if matches!(state.nvml, Answer::Ok { .. }) { before } else { &[] };
    let mut failed = Vec::new();
    for check in gpus::check(before, &state.gpus, &judged, is_new, Fabric::NotBroken) {
        match check.grade {
            Grade::Ok => {}
            Grade::Note => context.warn(check.what),
            Grade::Failed | Grade::RebootRequired => failed.push(check.what),
        }
    }
    if !failed.is_empty() {
        bail!(failed.join("; "));
    }
    Ok(())
}

/// The GPUs that NVML is known not to show. Preflight has read the configuration: one that cannot be read
/// any more is no reason to take a good driver out again.
pub(crate) fn ignored(context: &Context) -> Vec<String> {
    match context.config() {
        Ok(config) => config.gpus.ignore,
        Err(error) => {
            context.warn(format!("gpus.ignore is not known: {error:#}"));
            Vec::new()
        }
    }
}

/// What NVML says of itself, where it works.
pub(crate) fn works(answer: &Answer) -> Result<String> {
    match answer {
        Answer::Ok { driver_version, devices: 1 } => Ok(format!("driver {driver_version}, 1 GPU")),
        Answer::Ok { driver_version, devices } => Ok(format!("driver {driver_version}, {devices} GPUs")),
        Answer::Mismatch => bail!("NVML's library has another version than the loaded driver"),
        Answer::NotLoaded => bail!("NVML does not see a driver"),
        Answer::Asleep => bail!("NVML was not asked"),
        Answer::NoLibrary { reason } => bail!("NVML's library is not installed: {reason}"),
        Answer::Failed { reason } => bail!("NVML does not start: {reason}"),
    }
}
