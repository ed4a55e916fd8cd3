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
        /// The targets that still hold the machine, to be stopped first: their steps know the order.
        holding: Vec<&'static str>,
    },
}

/// A run is ended that has failed, or that nobody works on or holds any more.
pub(crate) fn decide(run: Option<&Run>, boot: &str, units: &OurUnits, is_switched_off: bool) -> Decision {
    let Some(run) = run else {
        return Decision::Nothing("no run is open: there is nothing to do".into());
    };
    let nothing = |why: String| Decision::Nothing(format!("run {} is left as it is: {why}", run.id));
    let holding = units.holding();
    match () {
        () if is_switched_off => nothing(format!("{OFF} is on the kernel command line")),
        // No step of this boot has anything to do with it, though one may be waiting for its end.
        () if run.boot != boot => Decision::End { holding: Vec::new() },
        () if run.has_failed() => Decision::End { holding },
        () if !holding.is_empty() => nothing(format!("{} holds the machine", holding.join(" and "))),
        () if units.has_steps() => nothing("its steps are at work".into()),
        () => Decision::End { holding },
    }
}

#[cfg(test)]
mod tests {
    use ledger::{Event, Record, Snapshot, Step};
    use step::{DRAINED, OFFLINE};

    use super::*;

    fn run(events: &[Event]) -> Run {
        let opened = Event::Opened { snapshot: Box::new(Snapshot::default()) };
        let record = |event: &Event| {
            let event = event.clone();
            Record { v: 1, run: "r".into(), boot: "b".into(), realtime_usec: 1, event }
        };
        let records: Vec<Record> = std::iter::once(&opened).chain(events).map(record).collect();
        Run::from_records(&records).expect("adds up")
    }

    #[test]
    fn a_run_is_ended_that_has_failed_or_that_nobody_owns() {
        let failed = || vec![Event::StepFailed { step: Step::Verify, reason: "r".into(), cancelled: false }];
        let cancelled =
            || vec![Event::StepFailed { step: Step::Verify, reason: "r".into(), cancelled: true }];
        let preflight = Step::Preflight.unit();
        let preflight = preflight.as_str();
        let units = |up: &[&str], starting: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            OurUnits { up: owned(up), starting: owned(starting) }
        };
        let end = |holding: &[&'static str]| Some(holding.to_vec());
        for (events, up, starting, expected) in [
            // Interrupted: by a boot, a soft-reboot, a killed undo.
            (vec![], &[][..], &[][..], end(&[])),
            (cancelled(), &[], &[], end(&[])),
            (failed(), &[], &[], end(&[])),
            (vec![Event::Committed], &[], &[], end(&[])),
            // Refused to go on: it stays offline or drained.
            (vec![], &[preflight, OFFLINE], &[], None),
            (vec![], &[preflight, DRAINED], &[], None),
            // A later run than the failed one.
            (vec![], &[preflight], &[], None),
            (vec![], &[], &[preflight], None),
            // The way on from offline has failed.
            (failed(), &[preflight, OFFLINE], &[], end(&[OFFLINE])),
            (failed(), &[preflight, DRAINED, OFFLINE], &[], end(&[OFFLINE, DRAINED])),
        ] {
            let holding = match decide(Some(&run(&events)), "b", &units(up, starting), false) {
                Decision::End { holding } => Some(holding),
                Decision::Nothing(_) => None,
            };
            assert_eq!(holding, expected, "{events:?} {up:?} {starting:?}");
        }
        let of_another_boot = decide(Some(&run(&[])), "c", &units(&[], &[preflight]), false);
        assert_eq!(of_another_boot, Decision::End { holding: Vec::new() });
        let off = decide(Some(&run(&failed())), "b", &OurUnits::default(), true);
        assert!(matches!(off, Decision::Nothing(_)));
        assert!(matches!(decide(None, "b", &OurUnits::default(), false), Decision::Nothing(_)));
    }
}
