// SPDX-License-Identifier: MIT
use super::*;

const RUN: u64 = 1_000_000;

fn progress() -> Progress {
    Progress::new(&Step::ALL, Phase::Forward, RUN)
}

fn active(state: ActiveState) -> UnitChange {
    UnitChange { active: Some(state), ..UnitChange::default() }
}

fn state_of(progress: &Progress, step: Step) -> State {
    progress.step(&step.unit()).expect("is in it").state
}

/// systemd tells of the service first, then of the unit.
fn start(progress: &mut Progress, step: Step, at: u64) {
    let service = UnitChange {
        started_usec: Some(at),
        exited_usec: Some(0),
        result: Some("success".into()),
        status_text: Some(String::new()),
        ..UnitChange::default()
    };
    progress.change(&step.unit(), &service, at);
    progress.change(&step.unit(), &active(ActiveState::Activating), at);
}

fn exit(progress: &mut Progress, step: Step, at: u64, status: i32) {
    let service = UnitChange {
        exited_usec: Some(at),
        code: Some(1),
        status: Some(status),
        result: Some(if status == 0 { "success" } else { "exit-code" }.into()),
        ..UnitChange::default()
    };
    progress.change(&step.unit(), &service, at);
    let state = if status == 0 { ActiveState::Active } else { ActiveState::Deactivating };
    progress.change(&step.unit(), &active(state), at);
}

#[test]
fn a_good_step_takes_the_time_of_its_process() {
    let mut progress = progress();
    start(&mut progress, Step::Preflight, RUN + 10);
    assert_eq!(state_of(&progress, Step::Preflight), State::Running);
    exit(&mut progress, Step::Preflight, RUN + 500_010, 0);
    let step = &progress.steps[0];
    assert_eq!((step.state, step.seconds), (State::Done, Some(0.5)));
    assert!(!progress.is_settled(&[]));
}

#[test]
fn a_failed_step_gives_back_and_stays_failed() {
    let mut progress = progress();
    start(&mut progress, Step::Preflight, RUN);
    exit(&mut progress, Step::Preflight, RUN + 1, 0);
    start(&mut progress, Step::RmmodChain, RUN + 2);
    exit(&mut progress, Step::RmmodChain, RUN + 1_000_002, 3);
    assert_eq!(state_of(&progress, Step::RmmodChain), State::Undoing);
    progress.phase = Phase::RollingBack;
    progress.change(&Step::RmmodChain.unit(), &active(ActiveState::Failed), RUN + 2_000_002);
    progress.change(&Step::Preflight.unit(), &active(ActiveState::Deactivating), RUN + 2_000_002);
    progress.change(&Step::Preflight.unit(), &active(ActiveState::Inactive), RUN + 2_000_003);
    let failed = progress.failed().expect("one failed");
    assert_eq!((failed.step, failed.state, failed.exit_status), (Step::RmmodChain, State::Failed, Some(3)));
    assert_eq!((failed.seconds, failed.undo_seconds), (Some(1.0), Some(1.0)));
    assert_eq!(state_of(&progress, Step::Preflight), State::Undone);
    assert_eq!(state_of(&progress, Step::Verify), State::Waiting);
    assert!(progress.is_settled(&[]));
}

#[test]
fn after_a_good_run_the_steps_stay_done() {
    let mut progress = progress();
    start(&mut progress, Step::Verify, RUN);
    exit(&mut progress, Step::Verify, RUN + 1, 0);
    progress.phase = Phase::Closing;
    for state in [ActiveState::Deactivating, ActiveState::Inactive] {
        progress.change(&Step::Verify.unit(), &active(state), RUN + 2);
    }
    assert_eq!(state_of(&progress, Step::Verify), State::Done);
}

#[test]
fn a_step_that_could_not_give_back_has_done_its_work() {
    let mut progress = progress();
    start(&mut progress, Step::Preflight, RUN);
    exit(&mut progress, Step::Preflight, RUN + 1, 0);
    progress.phase = Phase::Closing;
    // Its main process ended well; what follows it did not.
    let ended = UnitChange { result: Some("exit-code".into()), ..UnitChange::default() };
    progress.change(&Step::Preflight.unit(), &ended, RUN + 2);
    progress.change(&Step::Preflight.unit(), &active(ActiveState::Failed), RUN + 2);
    assert_eq!(state_of(&progress, Step::Preflight), State::Failed);
    assert_eq!(progress.failed(), None);
}

#[test]
fn a_step_that_failed_in_an_earlier_run_has_not_failed_when_its_process_begins() {
    let mut progress = progress();
    let service = UnitChange { started_usec: Some(RUN + 5), exited_usec: Some(0), ..UnitChange::default() };
    progress.change(&Step::ModprobeChain.unit(), &service, RUN + 5);
    let change = progress.change(&Step::ModprobeChain.unit(), &active(ActiveState::Failed), RUN + 5);
    assert_eq!((change, state_of(&progress, Step::ModprobeChain)), (Change::None, State::Waiting));
    progress.change(&Step::ModprobeChain.unit(), &active(ActiveState::Activating), RUN + 6);
    assert_eq!(state_of(&progress, Step::ModprobeChain), State::Running);
    assert!(progress.failed().is_none());
}

#[test]
fn what_an_earlier_run_left_is_not_of_this_one() {
    let mut progress = progress();
    let service = Service {
        result: "exit-code".into(),
        status_text: "old words".into(),
        main_pid: 0,
        started_usec: RUN - 10,
        exited_usec: RUN - 5,
        code: 1,
        status: 1,
    };
    progress.look(&Step::Verify.unit(), ActiveState::Failed, &service, RUN);
    let step = progress.step(&Step::Verify.unit()).expect("is in it");
    assert_eq!((step.state, step.failed, step.status.as_str()), (State::Waiting, false, ""));
    assert!(progress.is_settled(&[]));
}

#[test]
fn words_are_shown_as_they_change() {
    let mut progress = progress();
    start(&mut progress, Step::DrainContainers, RUN);
    let says = |text: &str| UnitChange { status_text: Some(text.into()), ..UnitChange::default() };
    let unit = Step::DrainContainers.unit();
    assert_eq!(progress.change(&unit, &says("stopping 2"), RUN), Change::Status);
    assert_eq!(progress.change(&unit, &says("stopping 2"), RUN), Change::None);
    assert_eq!(progress.change("docker.service", &says("x"), RUN), Change::None);
}

#[test]
fn a_job_that_failed_without_a_process_counts() {
    let mut progress = progress();
    assert_eq!(progress.job_failed(&Step::UnbindVt.unit()), Change::State);
    assert_eq!(progress.failed().map(|step| step.step), Some(Step::UnbindVt));
}
