// SPDX-License-Identifier: MIT
use super::super::gallery::{rolling_back, under_way};
use super::super::text::width;
use super::*;

const STYLE: Style = Style { width: Some(80), ..Style::PLAIN };

#[test]
fn a_picture_has_a_line_for_each_step() {
    let lines = picture(&under_way(), STYLE, 3_450_000);
    assert!(lines.iter().all(|line| width(line) <= 80), "{lines:#?}");
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_failed_run_shows_what_failed_and_what_is_back() {
    insta::assert_snapshot!(picture(&rolling_back(), STYLE, 7_300_000).join("\n"));
}

#[test]
fn without_unicode_there_is_ascii() {
    let ascii = Style { unicode: false, ..STYLE };
    for progress in [under_way(), rolling_back()] {
        assert!(picture(&progress, ascii, 7_000_000).iter().all(|line| line.is_ascii()));
    }
}

#[test]
fn a_log_has_a_line_for_each_thing_that_happens() {
    let progress = rolling_back();
    let said = |event: &Event| sentence(event, &progress, Style::PLAIN).unwrap_or_default();
    let mut lines = vec![said(&Event::Joined), said(&Event::Queued), said(&Event::RollingBack)];
    let before = under_way();
    for step in &before.steps {
        lines.push(sentence(&Event::Step(step.clone()), &before, Style::PLAIN).unwrap_or_default());
        lines.push(sentence(&Event::Status(step.clone()), &before, Style::PLAIN).unwrap_or_default());
    }
    for step in &progress.steps {
        lines.push(said(&Event::Step(step.clone())));
    }
    lines.retain(|line| !line.is_empty());
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_closing_of_a_good_run_is_not_shown() {
    let mut progress = under_way();
    progress.phase = Phase::Closing;
    let step = progress.steps[0].clone();
    assert_eq!(sentence(&Event::Step(step), &progress, Style::PLAIN), None);
}

#[test]
fn a_plan_that_differs_from_the_one_that_was_asked_about_is_shown_as_such() {
    let said = |changed| {
        let plan = super::super::gallery::ready_plan();
        let plan = Box::new(super::super::gallery::proposed(crate::kind::Kind::Reload, plan));
        sentence(&Event::Planned { plan, changed }, &under_way(), Style::PLAIN).unwrap_or_default()
    };
    assert!(said(false).starts_with("Reload NVIDIA driver 535.261.03"), "{}", said(false));
    assert_eq!(said(true), format!("The plan has changed since it was shown:\n{}", said(false)));
}

#[test]
fn a_refusal_is_no_failure_that_is_undone() {
    let refused = |exit| {
        let mut progress = under_way();
        progress.phase = Phase::RollingBack;
        let preflight = &mut progress.steps[0];
        (preflight.state, preflight.failed, preflight.exit_status) = (State::Undoing, true, Some(exit));
        let mut rollback = preflight.clone();
        (rollback.step, rollback.state, rollback.failed) = (Step::Rollback, State::Running, false);
        progress.steps.truncate(1);
        progress.steps.push(rollback.clone());
        let said = |event: &Event| sentence(event, &progress, Style::PLAIN);
        let told = said(&Event::Step(progress.steps[0].clone()));
        (
            told,
            said(&Event::RollingBack),
            said(&Event::Step(rollback)),
            picture(&progress, Style::PLAIN, 0).len(),
        )
    };
    let (told, rolling_back, rollback, lines) = refused(3);
    assert_eq!(told.as_deref(), Some("  preflight         refused"));
    assert_eq!((rolling_back, rollback, lines), (None, None, 1));
    assert_eq!(refused(4).0.as_deref(), Some("  preflight         no reload can help now"));
    let (told, rolling_back, rollback, lines) = refused(1);
    assert_eq!(told.as_deref(), Some("  preflight         failed, exit status 1, rolling back"));
    assert!(rolling_back.is_some() && rollback.is_some() && lines == 2);
}

#[test]
fn a_start_restores_and_undoes_nothing() {
    let mut progress = rolling_back();
    progress.phase = Phase::Restoring;
    progress.steps.iter_mut().for_each(|step| step.failed = false);
    let page = format!("{}\n{}", picture(&progress, STYLE, 7_300_000).join("\n"), footer(&progress, STYLE));
    for words in ["restoring", "restored", "not everything was restored", "What was stopped is restarted."] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("undo") && !page.contains("roll"), "{page}");
}

#[test]
fn a_finished_step_does_not_say_that_it_is_at_work() {
    let progress = rolling_back();
    let page = picture(&progress, STYLE, 7_300_000).join("\n");
    assert!(!page.contains("stopping") && page.contains("drain-containers  3.1 s       done"), "{page}");
}
