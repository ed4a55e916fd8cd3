// SPDX-License-Identifier: MIT
//! A reload and a reset that were asked for at once share the steps up to here: each goes on only in a run of
//! its own kind.

use ledger::{Run, Step};
use step::Stop;

/// Set by the unit of a reset, which unloads the modules that use the GPUs from inside the kernel.
const FOR: &str = "NVIDIA_RELOAD_FOR";

/// Refuses where the run is not of the unit's kind.
pub(crate) fn admit(run: &Run) -> Result<(), Stop> {
    fits(run.snapshot.reset, for_reset()).map_err(|what| {
        Stop::not_in_this_run(format!("run {} is {what}", run.id), "start again when it has ended")
    })
}

/// Whether this is the unit of a reset beside a run that is none, whose driver is not its business.
pub(crate) fn is_beside(run: &Run) -> bool {
    for_reset() && !run.snapshot.reset
}

fn for_reset() -> bool {
    std::env::var_os(FOR).is_some_and(|step| step == Step::GpuReset.name())
}

fn fits(is_reset: bool, for_reset: bool) -> Result<(), &'static str> {
    match (is_reset, for_reset) {
        (true, true) | (false, false) => Ok(()),
        (true, false) => Err("a reset of the GPUs, and no reload"),
        (false, true) => Err("a reload, and no reset of the GPUs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_of_one_kind() {
        for (is_reset, for_reset, expected) in
            [(true, true, true), (false, false, true), (true, false, false), (false, true, false)]
        {
            assert_eq!(fits(is_reset, for_reset).is_ok(), expected, "{is_reset} {for_reset}");
        }
    }
}
