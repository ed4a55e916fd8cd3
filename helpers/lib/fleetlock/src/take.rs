// SPDX-License-Identifier: MIT
//! Asking for the lease, before anything is stopped.

use std::io;

use anyhow::Result;
use step::{Context, Fleet, Order, Reason, Root, Stop, machine_id, monotonic_usec, order_unit};

use crate::answer::Answer;
use crate::lease::{Lease, Locked, State, lock};
use crate::release::STEADY;
use crate::{LOCK_UNIT, UNLOCK_UNIT};

/// A lease that the server has granted, and that no run has yet. Until it has, nothing else changes the record.
#[derive(Debug)]
pub struct Granted<'a> {
    locked: Locked<'a>,
    lease: Lease,
}

impl Granted<'_> {
    /// The lease is that of the run `id`, which has just begun.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn belongs_to(self, id: &str) -> Result<()> {
        let lease = Lease { run: Some(id.to_owned()), ..self.lease.entered(State::Held) };
        self.locked.write(&lease)
    }
}

/// Asks the server that the configuration names for a lease; none where it names none.
///
/// # Errors
/// A [`Stop`]: there is no lease.
pub fn take<'a>(context: &'a Context, fleet: &Fleet) -> Result<Option<Granted<'a>>> {
    if fleet.lock.is_empty() {
        return Ok(None);
    }
    let id = if fleet.id.is_empty() { machine_id(&context.root)? } else { fleet.id.clone() };
    let wanted = Lease::new(fleet.lock.clone(), fleet.group.clone(), id);
    context.status(format!("asking {} for a lease", fleet.lock));
    let taken = take_by(&context.root, wanted, order_unit)?;
    context.info(format!("{} is granted", taken.lease.name()));
    Ok(Some(taken))
}

/// What starts a unit.
trait Orders: Fn(Order, &str) -> io::Result<bool> {}

impl<F: Fn(Order, &str) -> io::Result<bool>> Orders for F {}

fn take_by(root: &Root, wanted: Lease, order: impl Orders) -> Result<Granted<'_>> {
    announce(root, &wanted)?;
    let began = monotonic_usec();
    let answer = match order(Order::Start, LOCK_UNIT) {
        Ok(true) => Answer::since(root, began),
        Ok(false) => Err(anyhow::anyhow!("there is no {LOCK_UNIT}")),
        Err(error) => Err(error.into()),
    };
    let answer = match answer {
        Ok(answer) => answer,
        // For who asked for the run, as if the unit had said so.
        Err(error) => {
            let answer = Answer::Unclear(format!("{error:#}"));
            answer.clone().leave(root)?;
            answer
        }
    };
    conclude(root, wanted, answer, order)
}

/// Writes down what is about to be asked for. Of a lease that is held already it is known.
fn announce(root: &Root, wanted: &Lease) -> Result<()> {
    let locked = lock(root)?;
    match locked.read()? {
        Some(lease) if !lease.is_like(wanted) => {
            let what =
                format!("{} is not released yet, and {} is configured now", lease.name(), wanted.server);
            Err(refused(what, format!("`systemctl start {STEADY}` verifies the driver and releases it")))
        }
        Some(lease) if lease.state == State::Held => Ok(()),
        _ => locked.write(wanted),
    }
}

/// What follows from the answer.
fn conclude(root: &Root, wanted: Lease, answer: Answer, order: impl Orders) -> Result<Granted<'_>> {
    let locked = lock(root)?;
    let lease = locked.read()?.filter(|lease| lease.is_like(&wanted) && lease.state != State::Releasing);
    let asked = lease.as_ref().is_some_and(|lease| lease.state == State::Asking);
    let Some(Reason { what, remedy }) = reason(&answer, &wanted.server) else {
        return match lease {
            Some(lease) => Ok(Granted { locked, lease }),
            None => Err(refused(format!("{} was released meanwhile", wanted.name()), "try again".into())),
        };
    };
    match (answer, lease) {
        // It may have been granted, and nothing was touched.
        (Answer::Unclear(_), Some(lease)) if asked => {
            locked.write(&lease.entered(State::Releasing))?;
            if let Err(error) = order(Order::Queue, UNLOCK_UNIT) {
                return Err(refused(format!("{what}; and it is not released: {error}"), remedy));
            }
        }
        _ if asked => locked.remove()?,
        _ => {}
    }
    Err(refused(what, remedy))
}

fn refused(what: String, remedy: String) -> anyhow::Error {
    Stop::Refused(vec![Reason::new(what, remedy)]).into()
}

/// Why there was no lease for a run that was refused after `since_usec` of CLOCK_MONOTONIC; none where it was refused
/// for something else.
pub fn refused_since(root: &Root, since_usec: u64, server: &str) -> Option<Reason> {
    reason(&Answer::since(root, since_usec).ok()?, server)
}

fn reason(answer: &Answer, server: &str) -> Option<Reason> {
    let (what, remedy) = match answer {
        Answer::Granted => return None,
        Answer::Refused(why) => (
            format!("{server} grants no lease: {why}"),
            "try again when another machine of the group is done".to_owned(),
        ),
        Answer::Unreached(why) => (
            format!("{server} cannot be asked for a lease: {why}"),
            "see whether the server runs, and fleet.lock in the configuration".to_owned(),
        ),
        Answer::Unclear(why) => (
            format!("{server} does not say whether it grants a lease: {why}"),
            format!("see whether the server works; `journalctl -u {LOCK_UNIT}` shows more"),
        ),
    };
    Some(Reason::new(what, remedy))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::read;

    fn machine() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        std::fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
        (directory, root)
    }

    fn wanted() -> Lease {
        Lease::new("http://lock".into(), "default".into(), "n1".into())
    }

    /// The answer that a run gets, and the units that were started; the server answers so.
    fn asked(root: &Root, answer: Option<Answer>) -> (Result<(), String>, Vec<String>) {
        let started = RefCell::new(Vec::new());
        let order = |_: Order, unit: &str| {
            started.borrow_mut().push(unit.to_owned());
            if unit == LOCK_UNIT {
                let lease = read(root).expect("reads").expect("is written before the server is asked");
                assert!(matches!(lease.state, State::Asking | State::Held));
                if let Some(answer) = &answer {
                    answer.clone().leave(root).expect("leaves");
                }
            }
            Ok(true)
        };
        let taken = take_by(root, wanted(), order);
        let taken = taken.map(|granted| granted.belongs_to("r1").expect("writes"));
        (taken.map_err(|error| format!("{error:#}")), started.into_inner())
    }

    fn state(root: &Root) -> Option<State> {
        read(root).expect("reads").map(|lease| lease.state)
    }

    #[test]
    fn a_lease_is_of_the_run_that_it_was_granted_for() {
        let (_directory, root) = machine();
        let began = monotonic_usec();
        assert_eq!(asked(&root, Some(Answer::Granted)), (Ok(()), vec![LOCK_UNIT.to_owned()]));
        let lease = read(&root).expect("reads").expect("is there");
        assert_eq!((lease.state, lease.run.as_deref()), (State::Held, Some("r1")));
        assert_eq!(refused_since(&root, began, "http://lock"), None);
    }

    #[test]
    fn what_is_not_granted_is_refused_and_leaves_nothing() {
        for (answer, words) in [
            (
                Answer::Refused("semaphore full".into()),
                "http://lock grants no lease: semaphore full: try again",
            ),
            (Answer::Unreached("no route".into()), "http://lock cannot be asked for a lease: no route: see"),
        ] {
            let (_directory, root) = machine();
            let began = monotonic_usec();
            let (taken, started) = asked(&root, Some(answer));
            let error = taken.expect_err("is refused");
            assert!(error.starts_with("refused, nothing was touched: ") && error.contains(words), "{error}");
            assert_eq!((state(&root), started), (None, vec![LOCK_UNIT.to_owned()]));
            assert!(refused_since(&root, began, "http://lock").is_some());
            assert_eq!(refused_since(&root, monotonic_usec() + 1, "http://lock"), None, "of an earlier run");
        }
    }

    #[test]
    fn what_may_have_been_granted_is_released() {
        for answer in [Some(Answer::Unclear("no answer within 20 s".into())), None] {
            let (_directory, root) = machine();
            let began = monotonic_usec();
            let (taken, started) = asked(&root, answer);
            assert!(taken.expect_err("is refused").contains("does not say whether"));
            assert_eq!(state(&root), Some(State::Releasing));
            assert_eq!(started, [LOCK_UNIT, UNLOCK_UNIT]);
            assert!(refused_since(&root, began, "http://lock").is_some(), "a waiting request asks again");
            // The next run asks again, whether or not it was released meanwhile.
            assert_eq!(asked(&root, Some(Answer::Granted)).0, Ok(()));
        }
    }

    #[test]
    fn a_lease_of_a_run_that_failed_is_kept_whatever_is_answered() {
        let (_directory, root) = machine();
        assert_eq!(asked(&root, Some(Answer::Granted)).0, Ok(()));
        for answer in [Some(Answer::Refused("no".into())), Some(Answer::Unclear("?".into())), None] {
            asked(&root, answer).0.expect_err("is refused");
            assert_eq!(state(&root), Some(State::Held));
        }
        assert_eq!(asked(&root, Some(Answer::Granted)).0, Ok(()), "the same id asks again");
    }

    #[test]
    fn a_lease_of_another_server_is_released_first() {
        let (_directory, root) = machine();
        assert_eq!(asked(&root, Some(Answer::Granted)).0, Ok(()));
        let other = Lease::new("http://other".into(), "default".into(), "n1".into());
        let never = |_: Order, unit: &str| panic!("{unit} is started");
        let error = format!("{:#}", take_by(&root, other, never).map(|_| ()).expect_err("is refused"));
        assert!(error.contains("http://lock") && error.contains(STEADY), "{error}");
    }

    #[test]
    fn a_lease_that_was_released_meanwhile_is_none() {
        let (_directory, root) = machine();
        let order = |_: Order, _: &str| {
            let locked = lock(&root).expect("locks");
            let lease = locked.read().expect("reads").expect("is there");
            locked.write(&lease.entered(State::Releasing)).expect("writes");
            Answer::Granted.leave(&root).expect("leaves");
            Ok(true)
        };
        let error = format!("{:#}", take_by(&root, wanted(), order).map(|_| ()).expect_err("is refused"));
        assert!(error.contains("released meanwhile: try again"), "{error}");
        assert_eq!(state(&root), Some(State::Releasing));
    }
}
