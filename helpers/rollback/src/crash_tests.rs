// SPDX-License-Identifier: MIT
//! Crash-exactness: wherever the power goes, in a run or in its recovery, what was taken is restored, and nothing
//! else is touched.
//!
//! A run is played by the ledger's own functions against a model of a machine. After each write to the ledger and
//! each act on the machine both are kept as they were: a moment. From each moment, and from each with a part of the
//! line that was about to be written, recovery is played with the decisions of this helper, in the same boot and in
//! the next. From a moment of that recovery it is played once more.

mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ledger::{Ledger, NotDone, Object, Outcome, Snapshot, State};
use proptest::prelude::*;
use step::{Root, Undo};

use super::*;
use script::{End, Script, Turn, objects, script};

const THEN: &str = "boot-1";
const NEXT: &str = "boot-2";
const LATER: &str = "boot-3";

/// What of a machine a run takes: objects by their names, in the ledger's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Machine {
    taken: BTreeSet<String>,
    /// Which undo was done to what, to see that none is done to what was not recorded.
    undone: BTreeSet<String>,
}

impl Machine {
    /// A boot brings the consoles, the gate and the driver of the disk; workloads stay down, and those that had been
    /// restarted are down again, which is the run's business as long as it is open.
    fn boot(&mut self, is_open: bool) {
        let objects: BTreeMap<String, Object> =
            objects().into_iter().map(|(_, object)| (object.to_string(), object)).collect();
        self.taken.retain(|name| !is_of_boot(&objects[name]));
        let is_workload = |name: &&String| matches!(objects[*name], Object::Container(_) | Object::Unit(_));
        if is_open {
            self.taken.extend(self.undone.iter().filter(is_workload).cloned());
        }
    }
}

fn is_of_boot(object: &Object) -> bool {
    matches!(object, Object::Console(_) | Object::Gate { .. } | Object::Module(_) | Object::Settings(_))
}

/// A moment: the ledger's file and the machine.
#[derive(Debug, Clone)]
struct Moment {
    text: Vec<u8>,
    machine: Machine,
    /// The objects of which the ledger has an act.
    announced: BTreeSet<String>,
}

/// What plays a run, and records its moments.
struct Player {
    _directory: tempfile::TempDir,
    context: Context,
    machine: Machine,
    announced: BTreeSet<String>,
    moments: Vec<Moment>,
}

fn name(object: &Object) -> String {
    object.to_string()
}

impl Player {
    fn new(boot: &str) -> Self {
        let directory = fuzz::directory();
        let root = Root::at(directory.path());
        let ledger = Ledger::new(root.path("/lib"), boot);
        let context = Context { step: Step::Rollback, root, ledger };
        let (machine, announced) = Default::default();
        Player { _directory: directory, context, machine, announced, moments: Vec::new() }
    }

    /// One who finds the machine as it was at a moment, and `torn` of the line that came next.
    fn at(moment: &Moment, torn: &[u8], boot: &str) -> Self {
        let mut player = Player::new(boot);
        player.context.ledger.open(Snapshot::default()).expect("makes the directories");
        fs::write(player.path(), [&moment.text[..], torn].concat()).expect("writes");
        // One that has read nothing yet.
        player.context.ledger = Ledger::new(player.context.root.path("/lib"), boot);
        player.machine = moment.machine.clone();
        player.announced = moment.announced.clone();
        player
    }

    fn path(&self) -> std::path::PathBuf {
        self.context.root.path("/lib/ledger.jsonl")
    }

    /// Records this moment; none where no ledger is.
    fn record(&mut self) {
        if let Some(text) = text(&self.path()) {
            let (machine, announced) = (self.machine.clone(), self.announced.clone());
            self.moments.push(Moment { text, machine, announced });
        }
    }

    fn act(&mut self, step: Step, object: &Object, turn: Turn) {
        let key = name(object);
        let path = self.path();
        let ledger = self.context.ledger.clone();
        self.announced.insert(key.clone());
        // The line is on disk before the machine changes.
        let result = ledger.act(step, object.clone(), || {
            self.record();
            let line = text(&path).unwrap_or_default();
            assert!(
                String::from_utf8_lossy(&line).lines().last().is_some_and(|line| line.contains("intent"))
            );
            if matches!(turn, Turn::Done | Turn::Unknown) {
                self.machine.taken.insert(key.clone());
                self.record();
            }
            match turn {
                Turn::Done => Ok(()),
                Turn::Unchanged => Err(NotDone::Unchanged(anyhow::anyhow!("refused"))),
                Turn::Unknown | Turn::Doubt => Err(NotDone::Unknown(anyhow::anyhow!("no answer"))),
            }
        });
        assert_eq!(result.is_ok(), turn == Turn::Done);
        self.record();
    }

    /// The undo of a step, as each of them does it: it looks, restores what is taken, and writes that.
    fn undo(&mut self, step: Step) {
        let context = Context { step, root: self.context.root.clone(), ledger: self.context.ledger.clone() };
        let Some(undo) = Undo::begin(&context).expect("is read") else { return };
        let mut acts = undo.run.outstanding(step);
        // No undo touches the driver after the commit, nor what is known to be killed.
        acts.retain(|act| match act.object {
            Object::Module(_) | Object::DriverFiles(_) => !undo.run.committed,
            Object::Process(_) => act.state == State::Intent,
            _ => true,
        });
        if acts.iter().any(|act| is_of_boot(&act.object)) {
            acts = undo.of_this_boot(acts);
        }
        for act in acts {
            let key = name(&act.object);
            assert!(self.announced.contains(&key), "{key} was not recorded");
            if matches!(act.object, Object::Process(_)) {
                // One that is there was not ended; one that is gone does not come back.
                match self.machine.taken.contains(&key) {
                    true => undo.lost(act.id, &act.object, "it was killed"),
                    false => {
                        undo.written(&key, context.ledger.ended(&[act.id], &[], "it was not killed", ""))
                    }
                }
            } else {
                if self.machine.taken.remove(&key) {
                    self.machine.undone.insert(key);
                    self.record();
                }
                undo.note(&act, Ok(()));
            }
            self.record();
        }
        undo.end("not undone").expect("everything is written");
    }

    fn finish(&mut self, leftovers: Leftovers) {
        let mut before = text(&self.path()).unwrap_or_default();
        // What is torn is written over.
        before.truncate(before.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
        finish(&self.context, leftovers, |_| Ok(Vec::new())).expect("closes");
        // As the power left it that went after the last line and before the move.
        if let Some(closed) = closed(&self.context) {
            let last = closed.split_inclusive(|byte| *byte == b'\n').next_back().unwrap_or_default();
            if last.windows(8).any(|word| word == b"\"closed\"") {
                let (machine, announced) = (self.machine.clone(), self.announced.clone());
                self.moments.push(Moment { text: [&before[..], last].concat(), machine, announced });
            }
        }
    }

    fn play(&mut self, script: &Script) {
        self.context.ledger.open(Snapshot::default()).expect("opens");
        self.record();
        let objects = objects();
        for (at, turn) in &script.acts {
            let (step, object) = &objects[*at];
            self.act(*step, object, *turn);
        }
        match script.end {
            End::Failed(step) => {
                self.context.ledger.step_failed(step, "it failed\nfor a reason").expect("writes");
                self.record();
            }
            End::Committed | End::RestoreFailed => {
                self.context.ledger.commit().expect("writes");
                self.record();
                if script.end == End::RestoreFailed {
                    self.context.ledger.step_failed(Step::Restore, "late").expect("writes");
                    self.record();
                }
                for step in [Step::Settings, Step::UnbindVt, Step::StopUnits, Step::DrainContainers] {
                    self.undo(step);
                }
            }
        }
        for step in Step::TAKING.into_iter().rev() {
            self.undo(step);
        }
        self.finish(Leftovers::Keep);
    }

    /// What this helper does with the run that it finds.
    fn recover(&mut self) {
        let run = self.context.ledger.read().expect("is read");
        let boot = self.context.ledger.boot();
        match decide(run.as_ref(), boot, &OurUnits::default(), false) {
            Decision::Nothing(_) => assert!(run.is_none(), "a run that is open is ended"),
            Decision::End { steps } => {
                assert!(!steps);
                let run = run.expect("is open");
                if run.boot != boot && goes_back(&run) {
                    self.undo(Step::InstallDriver);
                }
                let run = self.context.ledger.read().expect("is read").expect("is open");
                for step in steps_to_undo(&run) {
                    self.undo(step);
                }
                self.finish(Leftovers::GiveUp);
            }
        }
    }
}

fn text(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

/// The text of the last closed run.
fn closed(context: &Context) -> Option<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(context.root.path("/lib/history"))
        .ok()?
        .map(|entry| entry.expect("lists").path())
        .collect();
    paths.sort();
    text(paths.last()?)
}

/// What must hold when a run is over, however that came.
fn check(player: &mut Player, was: Option<&ledger::Run>) {
    let context = &player.context;
    assert_eq!(context.ledger.read().expect("is read"), None, "the run is closed");
    let last = context.ledger.last_closed().expect("is read").expect("is there");
    let committed = last.committed;
    let gone = |name: &String| {
        let object =
            objects().into_iter().map(|(_, object)| object).find(|object| object.to_string() == *name);
        match object.expect("is known") {
            Object::Process(_) => true,
            Object::Module(_) | Object::DriverFiles(_) => committed,
            _ => false,
        }
    };
    assert!(player.machine.taken.iter().all(gone), "not restored: {:?}", player.machine.taken);
    assert!(player.machine.undone.is_subset(&player.announced), "undone and not recorded");
    if let Some(was) = was {
        let expected = if committed { Outcome::Done } else { Outcome::RolledBack };
        assert_eq!((&last.id, last.outcome), (&was.id, Some(expected)));
        assert_eq!(last.damaged, Vec::<String>::new(), "each line after a torn one can be read");
        // What was recorded is there still, each with an end.
        assert!(was.acts.iter().all(|act| {
            last.acts.iter().any(|now| now.id == act.id && now.object.to_string() == act.object.to_string())
        }));
        assert!(last.missing().iter().all(|act| !act.is_outstanding()));
        let text = closed(context).expect("is there");
        assert!(!String::from_utf8_lossy(&text).contains("TOKEN=secret"), "the history has no secrets");
    }
    // Once more is as once, and a run that is closed stays so.
    let before = (player.machine.clone(), context.ledger.last_closed().expect("is read"));
    player.recover();
    Step::TAKING.into_iter().rev().for_each(|step| player.undo(step));
    let context = &player.context;
    assert_eq!((player.machine.clone(), context.ledger.last_closed().expect("is read")), before);
    context.ledger.intent(Step::StopUnits, objects()[3].1.clone()).expect_err("it is over");
    let next = context.ledger.open(Snapshot::default()).expect("the next run can begin");
    assert_eq!(context.ledger.read().expect("is read").map(|run| (run.id, run.acts.len())), Some((next, 0)));
}

/// Recovery from a moment, with `torn` after it, and once more from the moment of the recovery that `again` picks.
fn recovered(moment: &Moment, torn: &[u8], boot: &str, again: usize) {
    let mut player = Player::at(moment, torn, boot);
    let was = player.context.ledger.read().expect("is read, torn or not");
    if boot != THEN {
        player.machine.boot(was.is_some());
    }
    // Every act recorded before is still to be undone, or has its end.
    let lines = moment.text.split(|byte| *byte == b'\n');
    let intents = lines.filter(|line| line.windows(9).any(|word| word == b"\"intent\":")).count();
    if let Some(run) = &was {
        assert_eq!((run.acts.len(), run.damaged.len()), (intents, 0));
        for act in run.acts.iter().filter(|act| matches!(act.state, State::Intent | State::Done)) {
            assert!(act.is_outstanding());
        }
        let taken = |name: &String| run.acts.iter().any(|act| act.object.to_string() == *name);
        assert!(player.machine.taken.iter().all(taken), "taken and not recorded");
    }
    player.record();
    player.recover();
    let moments = std::mem::take(&mut player.moments);
    check(&mut player, was.as_ref());
    // The power goes in the recovery, too.
    let second = &moments[again % moments.len()];
    let torn: &[u8] = if again.is_multiple_of(3) { b"" } else { b"{\"v\":1,\"run\":\"" };
    let mut player = Player::at(second, torn, if boot == THEN { THEN } else { LATER });
    let was = player.context.ledger.read().expect("is read");
    if boot != THEN {
        player.machine.boot(was.is_some());
    }
    player.recover();
    check(&mut player, was.as_ref());
}

proptest! {
    // The runs are the same each time; PROPTEST_CASES and PROPTEST_RNG_SEED give others.
    #![proptest_config(config())]

    #[test]
    fn wherever_the_power_goes_what_was_taken_is_restored(script in script(), torn in any::<prop::sample::Index>(), again in 0..50_usize) {
        let mut player = Player::new(THEN);
        player.play(&script);
        let moments = std::mem::take(&mut player.moments);
        let whole = player.context.ledger.last_closed().expect("is read").expect("is closed");
        check(&mut player, Some(&whole));
        for (at, moment) in moments.iter().enumerate() {
            let boot = if at.is_multiple_of(2) { THEN } else { NEXT };
            recovered(moment, b"", boot, again);
            // A part of what was written next.
            let next = moments.get(at + 1).map_or(&[][..], |next| &next.text);
            let line = next.strip_prefix(moment.text.as_slice()).unwrap_or_default();
            if line.len() > 1 {
                recovered(moment, &line[..1 + torn.index(line.len() - 1)], boot, again);
            }
        }
    }
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 6;
    }
    if config.rng_seed == proptest::test_runner::RngSeed::Random {
        config.rng_seed = proptest::test_runner::RngSeed::Fixed(0);
    }
    config
}
