// SPDX-License-Identifier: MIT
use ledger::{Install, Snapshot};

use ledger::Starter;

use super::*;
use crate::view::runs_gallery::{account, at, good_account, history, on_record, recorded};

#[test]
fn each_step_and_each_workload_has_its_times() {
    let account = account();
    let steps: Vec<(Step, f64, &str)> = account
        .steps
        .iter()
        .map(|step| (step.step, between(step.began_usec, step.ended_usec), step.result))
        .collect();
    assert_eq!(steps[1], (Step::DrainContainers, 2.69, "done"));
    // It has no beginning of its own.
    assert_eq!(steps.last(), Some(&(Step::Verify, 1.88, "failed")));
    let workloads: Vec<(&str, &str, Option<f64>)> =
        account.workloads.iter().map(|one| (one.name.as_str(), one.state, one.seconds)).collect();
    assert_eq!(
        workloads,
        [
            ("docker container train (4f2a91c0b1de)", "not-restored", None),
            ("docker container serve (4f2a91c0b1de)", "restored", Some(10.55)),
            ("nvidia-persistenced.service", "restored", Some(7.0)),
        ]
    );
    assert_eq!((account.summary.began_usec, account.failed_usec), (at(0), Some(at(7_400))));
    assert_eq!(account.terminated[0].pid, 4711);
    assert_eq!(account.not_restored.len(), 1);
}

#[test]
fn the_longest_downtime_and_the_versions_are_those_of_the_record() {
    let good = good_account().summary;
    assert_eq!((good.downtime_seconds, good.seconds), (Some(6.55), Some(7.9)));
    assert_eq!(good.driver_before.as_deref(), Some("535.261.03"));
    assert_eq!(good.driver_after.as_deref(), Some("550.163.01"));
    let failed = account().summary;
    // One of them is down still.
    assert_eq!((failed.downtime_seconds, failed.failed_step), (None, Some(Step::Verify)));
    let open = &history().runs[0];
    assert_eq!((open.result, open.ended_usec, &open.driver_after), (None, None, &None));
}

#[test]
fn what_a_run_was_for_and_how_it_ended() {
    use ledger::Outcome::{Done, RolledBack};
    let slot = Install::Slot { version: "1".into() };
    let installer = Install::Installer { version: "1".into(), file: "f".into(), arguments: Vec::new() };
    let step = |step| Event::StepDone { step, began_usec: 1 };
    let failed = |cancelled| Event::StepFailed { step: Step::Verify, reason: "r".into(), cancelled };
    let held = || Snapshot { hold: Some(true), ..Snapshot::default() };
    let with = |install| Snapshot { install: Some(install), ..Snapshot::default() };
    for (snapshot, events, outcome, expected) in [
        (Snapshot::default(), vec![Event::Committed], Done, (What::Reload, Outcome::Done)),
        (Snapshot::default(), vec![failed(false)], RolledBack, (What::Reload, Outcome::RolledBack)),
        (Snapshot::default(), vec![failed(true)], RolledBack, (What::Reload, Outcome::Cancelled)),
        (
            Snapshot { reset: true, ..Snapshot::default() },
            vec![Event::Committed],
            Done,
            (What::Reset, Outcome::Done),
        ),
        (with(slot), vec![Event::Committed], Done, (What::Rollback, Outcome::Done)),
        (with(installer), vec![failed(false)], RolledBack, (What::Install, Outcome::RolledBack)),
        (held(), vec![step(Step::DrainContainers)], RolledBack, (What::Drained, Outcome::Done)),
        (held(), vec![step(Step::RmmodChain)], RolledBack, (What::Offline, Outcome::Done)),
        (held(), vec![step(Step::RmmodChain), Event::Committed], Done, (What::Reload, Outcome::Done)),
        (held(), vec![failed(false)], RolledBack, (What::Drained, Outcome::RolledBack)),
    ] {
        let mut all = vec![(0, Event::Opened { snapshot: Box::new(snapshot) })];
        all.extend(events.into_iter().map(|event| (1, event)));
        all.push((2, Event::Closed { outcome }));
        let summary = summary(&recorded("r", &all), "");
        assert_eq!((summary.what, summary.result), (expected.0, Some(expected.1)), "{all:?}");
    }
}

#[test]
fn a_run_is_chosen_by_the_beginning_of_its_id() {
    let history = on_record();
    let chosen = |wanted| choose(&history, wanted).map(|recorded| recorded.run.id[..4].to_owned());
    assert_eq!(chosen(None).expect("is the newest"), "3f2a");
    assert_eq!(chosen(Some("7d1c0b5e")).expect("is there"), "7d1c");
    for (wanted, why) in [("", "not empty"), ("zz", "begins with zz")] {
        let fault = chosen(Some(wanted)).expect_err("is none");
        assert!(fault.exit == 2 && fault.error.contains(why), "{fault:?}");
    }
    let twice = History { runs: [history.runs.clone(), history.runs.clone()].concat(), ..History::default() };
    assert!(choose(&twice, Some("3f2a")).expect_err("are two").error.contains("several"));
    let none = choose(&History::default(), None).expect_err("is none");
    assert_eq!(none.exit, 1);
}

#[test]
fn what_started_a_run_is_named() {
    let by = |login, unit: Option<&str>| {
        let starter = Starter { command: "reload".into(), unit: unit.map(Into::into), login };
        StartedBy::of(&starter, "alice:x:1000:1000::/:/bin/sh\n").words()
    };
    assert_eq!(by(Some(1000), None), "alice (nvidia-reload reload)");
    assert_eq!(by(Some(7), None), "user 7 (nvidia-reload reload)");
    let unit = "nvidia-reload-upgrade.service";
    assert_eq!(by(None, Some(unit)), "nvidia-reload-upgrade.service (nvidia-reload reload)");
    assert_eq!(by(None, None), "root (nvidia-reload reload)");
}

/// The names of all fields of a document, but for those of the ledger's own objects.
fn fields(value: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Array(list) => list.iter().for_each(|value| fields(value, into)),
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                into.insert(name.clone());
                if name != "object" {
                    fields(value, into);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_json_is_what_it_was_and_each_field_is_documented() {
    const PAGE: &str = include_str!("../../../docs/runs.md");
    let history = serde_json::to_value(history()).expect("encodes");
    let report = serde_json::to_value(account()).expect("encodes");
    let mut names = std::collections::BTreeSet::new();
    fields(&history, &mut names);
    fields(&report, &mut names);
    for name in &names {
        assert!(PAGE.contains(&format!("`{name}`")), "docs/runs.md does not have {name}");
    }
    insta::assert_snapshot!("history", step::text::json(&history).expect("encodes"));
    insta::assert_snapshot!("report", step::text::json(&report).expect("encodes"));
}
