// SPDX-License-Identifier: MIT
use super::*;

const UP: Goal = Goal::Up { paused: false };
const FROZEN: Goal = Goal::Up { paused: true };

#[test]
fn each_state_has_its_next_step() {
    for (phase, down, up, frozen) in [
        (Phase::Running, Move::Stop, Move::Arrived, Move::Pause),
        (Phase::Paused, Move::Unpause, Move::Arrived, Move::Arrived),
        (Phase::Restarting, Move::Stop, Move::Arrived, Move::Wait),
        (Phase::Stopping, Move::Wait, Move::Wait, Move::Wait),
        (Phase::Removing, Move::Wait, Move::Wait, Move::Wait),
        (Phase::Down, Move::Arrived, Move::Start, Move::Start),
    ] {
        assert_eq!(next(&phase, Goal::Down), down, "{phase:?}");
        assert_eq!(next(&phase, UP), up, "{phase:?}");
        assert_eq!(next(&phase, FROZEN), frozen, "{phase:?}");
    }
    let odd = Phase::Unknown("improper".into());
    assert!(matches!(next(&odd, Goal::Down), Move::Lost(reason) if reason.contains("improper")));
}

#[test]
fn work_that_is_done_at_once_is_no_failure() {
    let ended = |code| {
        let state = crate::inspect::State { exit_code: Some(code), ..Default::default() };
        finished(&Inspect { state: Some(state), ..Default::default() })
    };
    assert_eq!(ended(0), Ok(Ended::Finished));
    assert!(ended(1).expect_err("failed").to_string().contains("exit status 1"));
}
