// SPDX-License-Identifier: MIT
use super::*;
use crate::NotDone;
use crate::object::{Container, Process};
use crate::record::State;
use crate::room::RESERVE;
use anyhow::anyhow;
use proptest::prelude::*;

fn gate() -> Object {
    Object::Gate { path: "/run/modprobe.d/00-nvidia-reload.conf".into() }
}

fn ledger() -> (tempfile::TempDir, Ledger) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ledger = Ledger::new(directory.path().join("lib"), "boot-1");
    (directory, ledger)
}

#[test]
fn an_act_is_outstanding_until_it_is_restored() {
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    let act = ledger.intent(Step::RmmodChain, gate()).expect("writes");
    let run = || ledger.read().expect("reads").expect("is open");
    assert_eq!(run().outstanding(Step::RmmodChain).len(), 1);
    act.done().expect("writes");
    assert_eq!(run().outstanding(Step::RmmodChain)[0].state, State::Done);
    assert!(run().outstanding(Step::UnbindVt).is_empty());
    ledger.undo_failed(act.id(), "no").expect("writes");
    assert_eq!(run().missing().len(), 1);
    ledger.undone(act.id()).expect("writes");
    assert!(run().missing().is_empty());
    let closed = ledger.close(Outcome::RolledBack).expect("closes");
    assert_eq!(closed.outcome, Some(Outcome::RolledBack));
    assert!(ledger.read().expect("reads").is_none());
    assert_eq!(ledger.last_closed().expect("reads").expect("is there").id, closed.id);
}

#[test]
fn an_act_is_written_before_it_is_done_and_what_became_of_it_afterwards() {
    let (_directory, ledger) = ledger();
    let act = |act: fn() -> Result<(), NotDone>| ledger.act(Step::RmmodChain, gate(), act);
    act(|| unreachable!("without a line in the ledger nothing is done")).expect_err("no run is open");
    ledger.open(Snapshot::default()).expect("opens");
    let state = || ledger.read().expect("reads").expect("is open").acts.pop().expect("an act").state;
    ledger
        .act(Step::RmmodChain, gate(), || {
            assert_eq!(state(), State::Intent);
            Ok(())
        })
        .expect("is done");
    assert_eq!(state(), State::Done);
    let unchanged = act(|| Err(NotDone::Unchanged(anyhow!("busy").context("stop")))).expect_err("fails");
    assert_eq!((unchanged.to_string(), state()), ("stop".into(), State::Failed("stop: busy".into())));
    // Any other error: the undo looks.
    let unknown = act(|| Err(anyhow!("no answer").into())).expect_err("fails");
    assert_eq!((unknown.to_string(), state()), ("no answer".into(), State::Intent));
}

#[test]
fn a_second_run_is_refused_while_one_is_open() {
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    let error = ledger.open(Snapshot::default()).expect_err("must refuse");
    assert!(error.to_string().contains("still open"), "{error}");
}

#[test]
fn a_ledger_of_a_later_version_is_refused_and_left_alone() {
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    let text = fs::read_to_string(ledger.path()).expect("reads").replace("\"v\":1", "\"v\":2,\"news\":1");
    fs::write(ledger.path(), &text).expect("writes");
    for error in [
        ledger.read().expect_err("is refused"),
        ledger.intent(Step::Verify, gate()).expect_err("is refused"),
        ledger.open(Snapshot::default()).expect_err("is refused"),
    ] {
        assert!(format!("{error:#}").contains("a later version of nvidia-reload wrote this"), "{error:#}");
    }
    assert_eq!(fs::read_to_string(ledger.path()).expect("reads"), text);
}

/// Written by the first version, with every kind of event and object. An upgrade may come in the middle of a
/// run: this stays as it is, for ever.
const FIRST: &str = include_str!("first-version.jsonl");

#[test]
fn the_ledger_of_the_first_version_is_read_and_finished() {
    let (_directory, ledger) = ledger();
    fs::create_dir_all(ledger.history()).expect("creates");
    fs::write(ledger.path(), FIRST).expect("writes");
    let run = ledger.read().expect("reads").expect("is open");
    assert_eq!(run.damaged, Vec::<String>::new());
    assert_eq!((run.acts.len(), run.snapshot.modules.len(), run.failures.len()), (10, 1, 1));
    assert!(run.committed);
    for act in run.missing().iter().filter(|act| act.is_outstanding()) {
        ledger.undone(act.id).expect("goes on");
    }
    assert_eq!(ledger.close(Outcome::Degraded).expect("closes").missing().len(), 1);
}

#[test]
fn a_damaged_line_takes_no_other_with_it_and_is_named() {
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot { gpus: vec!["0000:3b:00.0".into()], ..Snapshot::default() }).expect("opens");
    let first = ledger.intent(Step::RmmodChain, gate()).expect("writes");
    let second = ledger.intent(Step::UnbindVt, gate()).expect("writes");
    second.done().expect("writes");
    let text = fs::read_to_string(ledger.path()).expect("reads");
    let lines: Vec<&str> = text.lines().collect();
    for (number, acts) in [(0, 2), (1, 1), (2, 1), (3, 2)] {
        for bad in [
            lines[number].replacen(':', ";", 1),
            lines[number].replace("\"event\"", "\"evfnt\""),
            "\0".into(),
        ] {
            let mut lines = lines.clone();
            lines[number] = &bad;
            fs::write(ledger.path(), lines.join("\n") + "\n").expect("writes");
            // The next one has read nothing before.
            let other = Ledger::new(ledger.directory.clone(), "boot-1");
            let run = other.read().expect("reads").expect("is open");
            assert_eq!(run.acts.len(), acts, "{bad}");
            let at = format!("ledger.jsonl:{}: damaged", number + 1);
            assert!(run.damaged.iter().any(|damage| damage.contains(&at)), "{:?}", run.damaged);
            // It goes on, and never with an id that was given before.
            let next = other.intent(Step::Verify, gate()).expect("goes on");
            assert!(next.id() > first.id().max(second.id()));
            assert_eq!(other.close(Outcome::Degraded).expect("closes").acts.len(), acts + 1);
        }
    }
}

#[test]
fn nothing_is_written_to_what_a_power_cut_left_of_another_run() {
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    ledger.close(Outcome::Done).expect("closes");
    let history = retire::closed(&ledger.history()).expect("lists");
    let text = fs::read(&history[0]).expect("reads");
    // As the power left it that went between the name of the ledger and the end of the other name.
    fs::hard_link(&history[0], ledger.directory.join("ledger.jsonl.new")).expect("links");
    ledger.open(Snapshot::default()).expect("opens");
    assert_eq!(fs::read(&history[0]).expect("reads"), text);
    assert_eq!(ledger.last_closed().expect("reads").expect("is there").outcome, Some(Outcome::Done));
}

#[test]
fn what_was_restarted_in_a_boot_that_ended_is_to_be_restarted_again() {
    let (directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    let container = Object::Container(Container { name: "train".into(), ..Container::default() });
    for (step, object) in [(Step::DrainContainers, container), (Step::RmmodChain, gate())] {
        let act = ledger.intent(step, object).expect("writes");
        let id = act.id();
        act.done().expect("writes");
        ledger.undone(id).expect("writes");
    }
    let outstanding = |ledger: &Ledger| ledger.read().expect("reads").expect("is open").missing().len();
    assert_eq!(outstanding(&ledger), 0);
    let next = Ledger::new(directory.path().join("lib"), "boot-2");
    assert_eq!(outstanding(&next), 1, "only the workload");
    next.undone(1).expect("writes");
    assert_eq!(outstanding(&next), 0);
    assert_eq!(next.close(Outcome::RolledBack).expect("closes").missing().len(), 0);
}

#[test]
fn what_was_closed_and_not_moved_is_moved_and_an_open_run_stays() {
    let (_directory, ledger) = ledger();
    ledger.sweep().expect("there is nothing yet, not even the directory");
    ledger.open(Snapshot::default()).expect("opens");
    ledger.sweep().expect("leaves it");
    assert!(ledger.read().expect("reads").is_some());
    // The close as far as its line, then a signal or the power.
    ledger.event(Event::Closed { outcome: Outcome::RolledBack }).expect("writes");
    ledger.sweep().expect("moves it");
    assert!(!ledger.path().exists());
    assert_eq!(retire::closed(&ledger.history()).expect("lists").len(), 1);
    assert_eq!(ledger.last_closed().expect("reads").expect("is there").outcome, Some(Outcome::RolledBack));
}

#[test]
fn room_is_set_aside_for_what_must_not_fail_even_after_a_torn_line() {
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    let room = || {
        let data = fs::metadata(ledger.path()).expect("is there");
        (data.blocks() * 512).saturating_sub(data.size())
    };
    if room() == 0 {
        eprintln!("this file system sets nothing aside: not tried");
        return;
    }
    assert!(room() >= RESERVE, "{}", room());
    let mut last = None;
    for _ in 0..40 {
        let act = ledger.intent(Step::RmmodChain, gate()).expect("writes");
        act.failed("x".repeat(100_000)).expect("writes");
        last = Some(act);
    }
    assert!(room() >= RESERVE, "{}", room());
    let torn = OpenOptions::new().append(true).open(ledger.path()).expect("opens");
    std::io::Write::write_all(&mut &torn, &[b'x'; 3000]).expect("writes");
    last.expect("an act").done().expect("writes");
    assert!(room() >= RESERVE - 8192, "{}", room());
    assert_eq!(ledger.read().expect("reads").expect("is open").acts.len(), 40);
    let closed = ledger.close(Outcome::Done).expect("closes");
    assert_eq!((closed.acts.len(), closed.damaged.len()), (40, 0));
    let data = fs::metadata(&retire::closed(&ledger.history()).expect("lists")[0]).expect("is there");
    assert!(data.blocks() * 512 < data.size() + RESERVE, "it is free again");
}

#[test]
fn what_was_read_is_not_read_again() {
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    let other = Ledger::new(ledger.directory.clone(), "boot-1");
    let command = "é".repeat(65_536);
    let process = |pid| Process { pid, start_ticks: 1, uid: 0, command: command.clone() };
    for pid in 0..2000 {
        ledger.intent(Step::KillHolders, Object::Process(process(pid))).expect("writes").leave_open();
        if pid % 500 == 0 {
            assert_eq!(other.read().expect("reads").expect("is open").acts.len(), pid as usize + 1);
        }
    }
    let bytes = fs::metadata(ledger.path()).expect("is there").size();
    assert!(bytes < 2000 * 1024, "{bytes}");
    // Many at once are written in one.
    let ids = ledger.intents(Step::KillHolders, vec![gate(), gate()]).expect("writes");
    ledger.ended(&ids[..1], &ids[1..], "no", "gone").expect("writes");
    let acts = other.read().expect("reads").expect("is open").acts;
    let ends: Vec<State> = acts[2000..].iter().map(|act| act.state.clone()).collect();
    assert_eq!((ids, ends), (vec![2001, 2002], vec![State::Failed("no".into()), State::Lost("gone".into())]));
    // What another process wrote meanwhile is seen.
    let act = other.intent(Step::UnbindVt, gate()).expect("writes");
    assert_eq!((act.id(), ledger.read().expect("reads").expect("is open").acts.len()), (2003, 2003));
}

#[test]
fn a_definition_does_not_outlive_the_run() {
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    let definition = Some(serde_json::json!({"Env": ["TOKEN=secret"]}));
    let container = Container { id: "1".into(), definition, ..Container::default() };
    ledger.act(Step::DrainContainers, Object::Container(container), || Ok(())).expect("writes");
    let of = |run: &Run| match &run.acts[0].object {
        Object::Container(container) => container.definition.clone(),
        _ => None,
    };
    assert!(of(&ledger.read().expect("reads").expect("is open")).is_some());
    ledger.close(Outcome::Degraded).expect("closes");
    let path = &retire::closed(&ledger.history()).expect("lists")[0];
    assert!(!fs::read_to_string(path).expect("reads").contains("secret"));
    assert_eq!(fs::metadata(path).expect("is there").mode() & 0o777, 0o600);
    let run = ledger.last_closed().expect("reads").expect("is there");
    assert_eq!((of(&run), run.acts[0].state.clone()), (None, State::Done));
}

#[test]
fn a_ledger_that_others_can_write_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    for (path, bad, good) in [(ledger.path(), 0o666, 0o600), (ledger.directory.clone(), 0o777, 0o755)] {
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("sets");
        mode(bad);
        let error = Ledger::new(ledger.directory.clone(), "boot-1").read().expect_err("is refused");
        let text = format!("{error:#}");
        assert!(text.contains(&format!("mode {bad:04o}")) && text.contains("chmod go-w"), "{text}");
        mode(good);
    }
}

#[test]
fn a_run_that_is_over_gets_no_line_more() {
    let (_directory, ledger) = ledger();
    ledger.open(Snapshot::default()).expect("opens");
    ledger.event(Event::Closed { outcome: Outcome::Done }).expect("writes");
    let error = ledger.intent(Step::Verify, gate()).expect_err("is over").to_string();
    assert!(error.contains("is over"), "{error}");
    assert_eq!(ledger.last_closed().expect("reads").expect("is there").outcome, Some(Outcome::Done));
}

#[test]
fn the_history_keeps_the_last_runs() {
    let (_directory, ledger) = ledger();
    for _ in 0..retire::HISTORY + 3 {
        ledger.open(Snapshot::default()).expect("opens");
        ledger.close(Outcome::Done).expect("closes");
    }
    assert_eq!(retire::closed(&ledger.history()).expect("reads").len(), retire::HISTORY);
}

proptest! {
    /// Wherever the power goes, what was synced before is there, and the file can go on.
    #[test]
    fn a_torn_tail_loses_only_the_torn_line(cut in 0usize..2000) {
        let (_directory, ledger) = ledger();
        ledger.open(Snapshot::default()).expect("opens");
        for _ in 0..4 {
            ledger.act(Step::RmmodChain, gate(), || Ok(())).expect("writes");
        }
        let text = fs::read(ledger.path()).expect("reads");
        let cut = cut.min(text.len());
        fs::write(ledger.path(), &text[..cut]).expect("writes");
        let whole = text[..cut].iter().filter(|byte| **byte == b'\n').count();
        if whole == 0 {
            // Cannot come from a power cut: the first line is linked in whole.
            prop_assert!(ledger.read().is_err());
        } else {
            let run = ledger.read().expect("reads").expect("open");
            prop_assert_eq!(run.acts.len(), whole / 2);
            let act = ledger.intent(Step::UnbindVt, gate()).expect("goes on");
            prop_assert_eq!(act.id() as usize, whole / 2 + 1);
            prop_assert_eq!(ledger.read().expect("reads").expect("open").acts.len(), whole / 2 + 1);
        }
    }
}
