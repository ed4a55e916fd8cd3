// SPDX-License-Identifier: MIT
//! What has to hold before a step may do its part of a run, whichever door the run came through.

use std::fs;

use anyhow::{Context as _, Result};
use ledger::{Act, Object, Run, Step};

use crate::{Context, Root, Stop};

/// On the kernel command line, where it turns everything off.
pub const OFF: &str = "nvidia_reload=0";

/// Whether the kernel command line turns everything off.
///
/// # Errors
/// It cannot be read.
pub fn is_switched_off(root: &Root) -> Result<bool> {
    let path = root.path("/proc/cmdline");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.split_whitespace().any(|word| word == OFF))
}

/// Refuses the step where everything is turned off, and where the open run is past its turn: a start in the
/// middle of a rollback makes systemd run again the steps that are undone already.
///
/// # Errors
/// The refusal, or the machine cannot be looked at.
pub(crate) fn admit(context: &Context) -> Result<()> {
    // Preflight opens the run, and gives all its reasons together. Rollback only ends one.
    if matches!(context.step, Step::Preflight | Step::Rollback) {
        return Ok(());
    }
    if is_switched_off(&context.root)? {
        let what = format!("{OFF} is on the kernel command line");
        return Err(Stop::not_in_this_run(what, format!("boot without {OFF}")).into());
    }
    match context.ledger.read()? {
        Some(run) => Ok(takes(&run, context.step)?),
        // The step itself says that there is none.
        None => Ok(()),
    }
}

/// Whether `step` still has its turn in `run`.
fn takes(run: &Run, step: Step) -> Result<(), Stop> {
    let refused = |what: &str| {
        Err(Stop::not_in_this_run(format!("run {} {what}", run.id), "start again when it has ended"))
    };
    match () {
        () if run.has_failed() => refused("has failed and is rolled back"),
        // After the commit only restore has work to do, and once.
        () if run.committed && (step != Step::Restore || run.restored) => {
            refused("is done and about to be closed")
        }
        () => Ok(()),
    }
}

/// Whether systemd calls the undo of a step that starts workloads while the driver is not loaded again: they would
/// only fail. Rollback, which comes next, tries the driver once more, and starts them in any case.
///
/// # Errors
/// The ledger cannot be read.
pub(crate) fn is_left_to_rollback(context: &Context) -> Result<bool> {
    let by_systemd = std::env::var_os("SERVICE_RESULT").is_some();
    let run = if by_systemd { context.ledger.read()? } else { None };
    Ok(run.is_some_and(|run| lacks_driver(&run, context.ledger.boot(), context.step)))
}

fn lacks_driver(run: &Run, boot: &str, step: Step) -> bool {
    let is_module = |act: &Act| matches!(act.object, Object::Module(_));
    let starts = matches!(step, Step::DrainContainers | Step::StopUnits);
    starts && !run.committed && run.boot == boot && run.outstanding(Step::RmmodChain).iter().any(is_module)
}

#[cfg(test)]
mod tests {
    use golden::run;
    use ledger::{Event, Module};

    use super::*;

    #[test]
    fn a_step_has_its_turn_until_the_run_fails_or_is_committed() {
        let failed = |cancelled| Event::StepFailed { step: Step::Verify, reason: "r".into(), cancelled };
        let done = |step| Event::StepDone { step, began_usec: 1 };
        for (events, step, expected) in [
            (vec![], Step::UnbindVt, true),
            (vec![failed(false)], Step::UnbindVt, false),
            (vec![failed(true)], Step::DrainContainers, false),
            (vec![Event::Committed], Step::Restore, true),
            // Started again after it was undone: there would be a reload that reloads nothing.
            (vec![Event::Committed], Step::ModprobeChain, false),
            (vec![Event::Committed], Step::Verify, false),
            (vec![Event::Committed, failed(false)], Step::Restore, false),
            (vec![Event::Committed, done(Step::Verify)], Step::Restore, true),
            (vec![Event::Committed, done(Step::Restore)], Step::Restore, false),
        ] {
            assert_eq!(takes(&run(&events), step).is_ok(), expected, "{step} after {events:?}");
        }
    }

    #[test]
    fn no_step_runs_where_everything_is_turned_off() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("proc")).expect("creates");
        for (line, expected) in [("quiet\n", true), ("quiet nvidia_reload=0\n", false)] {
            fs::write(directory.path().join("proc/cmdline"), line).expect("writes");
            for step in Step::TAKING.into_iter().filter(|step| *step != Step::Preflight) {
                let root = Root::at(directory.path());
                let ledger = ledger::Ledger::new(root.path("/lib"), "b");
                let admitted = admit(&Context { step, root, ledger });
                assert_eq!(admitted.is_ok(), expected, "{step}: {admitted:?}");
            }
        }
    }

    #[test]
    fn workloads_are_started_after_the_driver() {
        let module =
            Module { name: "nvidia".into(), version: None, srcversion: None, parameters: Default::default() };
        let gone = Event::Intent { id: 1, step: Step::RmmodChain, object: Object::Module(module) };
        let lacks = |events: &[Event], boot: &str, step| lacks_driver(&run(events), boot, step);
        let gone = &[gone, Event::UndoFailed { id: 1, reason: "killed".into() }];
        let back = &[gone[0].clone(), Event::Undone { id: 1 }];
        let committed = &[gone[0].clone(), Event::Committed];
        assert!(lacks(gone, "b", Step::DrainContainers) && lacks(gone, "b", Step::StopUnits));
        assert!(!lacks(gone, "b", Step::RmmodChain) && !lacks(gone, "another", Step::StopUnits));
        assert!(!lacks(back, "b", Step::StopUnits) && !lacks(committed, "b", Step::StopUnits));
    }

    #[test]
    fn the_switch_is_a_word_of_its_own() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert!(is_switched_off(&root).is_err());
        fs::create_dir(directory.path().join("proc")).expect("creates");
        for (line, expected) in
            [("quiet nvidia_reload=01 xnvidia_reload=0\n", false), ("quiet nvidia_reload=0\n", true)]
        {
            fs::write(root.path("/proc/cmdline"), line).expect("writes");
            assert_eq!(is_switched_off(&root).expect("reads"), expected, "{line}");
        }
    }
}
