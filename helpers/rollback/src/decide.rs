// SPDX-License-Identifier: MIT
//! Whether the open run is this helper's to end. It may come late: after the steps were undone and the run was
//! closed, and even when the next run has begun.

use ledger::Run;
use step::{OFF, OurUnits};

/// What is done about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is left as it is, for this reason.
    Nothing(String),
    /// It is ended.
    End {
        /// Its steps are still up, and have to be stopped first: they know the order.
        steps: bool,
    },
}

/// A run is ended that has failed, or that nothing works on or holds any more.
pub(crate) fn decide(run: Option<&Run>, boot: &str, units: &OurUnits, is_switched_off: bool) -> Decision {
    let Some(run) = run else {
        return Decision::Nothing("no run is open: there is nothing to do".into());
    };
    let nothing = |why: String| Decision::Nothing(format!("run {} is left as it is: {why}", run.id));
    let holding = units.holding();
    let end = Decision::End { steps: units.has_steps() };
    match () {
        () if is_switched_off => nothing(format!("{OFF} is on the kernel command line")),
        // No step of this boot has anything to do with it, though one may be waiting for its end.
        () if run.boot != boot => Decision::End { steps: false },
        () if run.has_failed() => end,
        () if !holding.is_empty() => nothing(format!("{} holds the machine", holding.join(" and "))),
        () if units.is_at_work() => nothing("its steps are at work".into()),
        // A reload that was asked for during a reset, and refused, leaves its steps and its target behind.
        () => end,
    }
}

#[cfg(test)]
mod tests {
    use golden::run;
    use ledger::{Event, Step};
    use step::{DRAINED, OFFLINE, RESET};

    use super::*;

    #[test]
    fn a_run_is_ended_that_has_failed_or_that_nothing_owns() {
        let failed = || vec![Event::StepFailed { step: Step::Verify, reason: "r".into(), cancelled: false }];
        let cancelled =
            || vec![Event::StepFailed { step: Step::Verify, reason: "r".into(), cancelled: true }];
        let preflight = Step::Preflight.unit();
        let preflight = preflight.as_str();
        let units = |up: &[&str], starting: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            OurUnits { up: owned(up), starting: owned(starting) }
        };
        let reset = Step::GpuReset.unit();
        let reset = reset.as_str();
        for (events, up, starting, expected) in [
            // Interrupted: by a soft-reboot, a killed undo.
            (vec![], &[][..], &[][..], Some(false)),
            (cancelled(), &[], &[], Some(false)),
            (failed(), &[], &[], Some(false)),
            (vec![Event::Committed], &[], &[], Some(false)),
            // Refused to go on: it stays offline or drained.
            (vec![], &[preflight, OFFLINE], &[], None),
            (vec![], &[preflight, DRAINED], &[], None),
            // A later run than the failed one.
            (vec![], &[preflight], &[reset], None),
            (vec![], &[], &[preflight], None),
            // Nothing needs its steps, and systemd has not noticed.
            (vec![Event::Committed], &[preflight, RESET], &[], Some(true)),
            (vec![], &[preflight], &[], Some(true)),
            // The way on from offline has failed.
            (failed(), &[preflight, OFFLINE], &[], Some(true)),
            (failed(), &[preflight, DRAINED, OFFLINE], &[], Some(true)),
        ] {
            let steps = match decide(Some(&run(&events)), "b", &units(up, starting), false) {
                Decision::End { steps } => Some(steps),
                Decision::Nothing(_) => None,
            };
            assert_eq!(steps, expected, "{events:?} {up:?} {starting:?}");
        }
        let of_another_boot = decide(Some(&run(&[])), "c", &units(&[], &[preflight]), false);
        assert_eq!(of_another_boot, Decision::End { steps: false });
        let off = decide(Some(&run(&failed())), "b", &OurUnits::default(), true);
        assert!(matches!(off, Decision::Nothing(_)));
        assert!(matches!(decide(None, "b", &OurUnits::default(), false), Decision::Nothing(_)));
    }
}
