// SPDX-License-Identifier: MIT
use super::super::gallery;
use super::*;
use crate::report::SCHEMA;

const STYLE: Style = Style { width: Some(80), ..Style::PLAIN };

#[test]
fn a_good_reload_says_what_changed() {
    insta::assert_snapshot!(report(&gallery::report(false), STYLE));
}

#[test]
fn what_is_not_back_is_named_with_its_reason() {
    insta::assert_snapshot!(report(&gallery::report(true), STYLE));
}

#[test]
fn a_new_driver_that_stays_is_no_failure() {
    let mut done = gallery::report(false);
    done.outcome = Outcome::Degraded;
    done.committed = true;
    let page = report(&done, STYLE);
    assert!(page.starts_with("The reload is done, in 4.2 s, but finished degraded: "), "{page}");
}

#[test]
fn every_outcome_has_its_words() {
    let all = [
        Outcome::Done,
        Outcome::Stopped,
        Outcome::NothingToDo,
        Outcome::Started,
        Outcome::RolledBack,
        Outcome::Cancelled,
        Outcome::Failed,
        Outcome::Refused,
        Outcome::RebootRequired,
        Outcome::Degraded,
        Outcome::Unfinished,
        Outcome::Interrupted,
    ];
    let pages: Vec<String> = all
        .into_iter()
        .map(|outcome| {
            let command = match outcome {
                Outcome::Stopped => "stop",
                Outcome::NothingToDo => "start",
                _ => "reload",
            };
            format!(
                "{} {}",
                outcome.exit(),
                report(&Report::new(command, outcome, "nvidia-reload.target"), STYLE)
            )
        })
        .collect();
    insta::assert_snapshot!(pages.join("\n"));
}

#[test]
fn the_json_is_as_promised() {
    let json = serde_json::to_value(gallery::report(true)).expect("encodes");
    assert_eq!(json["schema"], SCHEMA);
    assert_eq!(json["outcome"], "degraded");
    assert_eq!(json["exit"], 5);
    assert_eq!(json["missing"][0]["object"]["kind"], "container");
    assert_eq!(json["steps"][0]["step"], "preflight");
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).expect("encodes"));
}

#[test]
fn an_error_begins_with_its_line() {
    let error = Fault::refused("cannot read /proc/cmdline", "mount /proc")
        .because(&std::io::Error::from_raw_os_error(13));
    insta::assert_snapshot!(fault(&error, STYLE), @r"
    error: cannot read /proc/cmdline
      mount /proc
      because: Permission denied (os error 13)
    ");
}

#[test]
fn a_refused_run_has_no_rollback() {
    let mut progress = gallery::under_way();
    progress.steps[0].failed = true;
    for step in progress.steps.iter_mut().filter(|step| step.step == Step::Rollback) {
        step.state = crate::follow::State::Done;
    }
    let refused = Report::new("reload", Outcome::Refused, "nvidia-reload.target").with_progress(&progress);
    assert!(refused.steps.iter().all(|step| step.step != Step::Rollback));
    progress.steps[0].failed = false;
    let rolled_back =
        Report::new("reload", Outcome::RolledBack, "nvidia-reload.target").with_progress(&progress);
    assert!(rolled_back.steps.iter().any(|step| step.step == Step::Rollback));
}
