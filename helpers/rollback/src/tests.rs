// SPDX-License-Identifier: MIT
use golden::run;
use ledger::{DriverFiles, Event, Ledger, Object, Snapshot, Unit};
use step::Root;

use super::*;

fn failed(step: Step, cancelled: bool) -> Event {
    Event::StepFailed { step, reason: "r".into(), cancelled }
}

fn intent(id: u64, step: Step) -> Event {
    let object = match step {
        Step::InstallDriver => {
            Object::DriverFiles(DriverFiles { version: "535".into(), others: Default::default() })
        }
        _ => Object::Unit(Unit { name: "a.service".into(), user: None, role: "holder".into() }),
    };
    Event::Intent { id, step, object }
}

#[test]
fn a_boot_has_the_driver_on_disk_unless_the_run_had_touched_it_or_seen_it_fail() {
    let install = || intent(1, Step::InstallDriver);
    for (events, expected) in [
        (vec![], false),
        (vec![intent(1, Step::StopUnits)], false),
        // The power went in the middle of the exchange, or after it.
        (vec![install()], true),
        (vec![install(), Event::Done { id: 1 }], true),
        (vec![install(), Event::Undone { id: 1 }], true),
        (vec![install(), Event::Done { id: 1 }, Event::Committed], false),
        (vec![failed(Step::Verify, false)], true),
        (vec![failed(Step::ModprobeChain, false)], true),
        // Nothing is known of the driver on disk.
        (vec![failed(Step::Verify, true)], false),
        (vec![failed(Step::RmmodChain, false)], false),
        // Only the workloads were late.
        (vec![Event::Committed, failed(Step::Restore, false)], false),
    ] {
        assert_eq!(goes_back(&run(&events)), expected, "{events:?}");
    }
}

#[test]
fn those_steps_are_undone_that_have_something_left_the_last_first() {
    let units = || intent(1, Step::StopUnits);
    for (events, expected) in [
        (vec![], vec![]),
        (vec![units()], vec![Step::StopUnits]),
        (vec![units(), Event::Done { id: 1 }], vec![Step::StopUnits]),
        (vec![units(), Event::UndoFailed { id: 1, reason: "r".into() }], vec![Step::StopUnits]),
        (vec![units(), Event::Undone { id: 1 }], vec![]),
        (vec![units(), Event::Lost { id: 1, reason: "r".into() }], vec![]),
        (vec![units(), Event::Failed { id: 1, reason: "r".into() }], vec![]),
        (
            vec![units(), intent(2, Step::RmmodChain), intent(3, Step::InstallDriver)],
            vec![Step::InstallDriver, Step::RmmodChain, Step::StopUnits],
        ),
        // Its files may still be those of the driver that failed.
        (vec![failed(Step::Verify, false)], vec![Step::InstallDriver]),
        (vec![failed(Step::Verify, true)], vec![]),
        (vec![failed(Step::Verify, false), Event::Committed], vec![]),
    ] {
        assert_eq!(steps_to_undo(&run(&events)), expected, "{events:?}");
    }
}

#[test]
fn what_is_not_restored_is_not_hidden_by_what_is_wrong_with_the_driver() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let ledger = |boot| Ledger::new(root.path("/var/lib/nvidia-reload"), boot);
    let then = ledger("then");
    then.open(Snapshot::default()).expect("opens");
    let Event::Intent { step, object, .. } = intent(1, Step::StopUnits) else { unreachable!() };
    then.intent(step, object).expect("writes").lost("it is gone").expect("writes");
    // What is loaded is not known.
    std::fs::create_dir_all(root.path("/sys/module/nvidia/version")).expect("creates");
    let ledger = ledger("now");
    let context = Context { step: Step::Rollback, root, ledger };
    reload_on_mismatch(&context).expect_err("cannot tell");
    let error = conclude(&context, true).expect_err("one unit is lost").to_string();
    assert!(error.contains("not everything is as it should be: a.service"), "{error}");
}
