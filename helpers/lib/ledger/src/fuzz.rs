// SPDX-License-Identifier: MIT
//! What a disk can make of a ledger. See the crate `fuzz`.

use std::collections::BTreeSet;
use std::fs;

use crate::{Act, Ledger, Object, Outcome, Snapshot, Step};

#[test]
fn ledger() {
    let directory = fuzz::directory();
    let place = directory.path().join("lib");
    let ledger = || Ledger::new(&place, "boot-1");
    ledger().open(Snapshot::default()).expect("opens");
    fuzz::run(env!("CARGO_MANIFEST_DIR"), "ledger", |text| {
        fs::write(place.join("ledger.jsonl"), text).expect("writes");
        let one = ledger();
        let Ok(Some(run)) = one.read() else { return };
        let ids: BTreeSet<u64> = run.acts.iter().map(|act| act.id).collect();
        assert_eq!(ids.len(), run.acts.len(), "each act once");
        // It goes on, and what was known stays.
        let gate = Object::Gate { path: "/run/gate".into() };
        let act = one.intent(Step::RmmodChain, gate).expect("goes on");
        act.done().expect("goes on");
        let read = ledger().read().expect("is read").expect("is open");
        assert!(!ids.contains(&act.id()) && read.acts.iter().any(|known| known.id == act.id()));
        let rest: Vec<Act> = read.acts.into_iter().filter(|known| known.id != act.id()).collect();
        assert_eq!(rest, run.acts);
        let closed = one.close(Outcome::Degraded).expect("is closed");
        assert_eq!((closed.id, ledger().read().expect("is read")), (run.id, None));
        assert_eq!(one.last_closed().expect("is read").and_then(|run| run.outcome), Some(Outcome::Degraded));
        fs::remove_dir_all(place.join("history")).expect("removes");
        fs::create_dir(place.join("history")).expect("creates");
    });
}
