// SPDX-License-Identifier: MIT
//! Wherever the power goes while containers are stopped, the undo starts those that were, and gives no order for
//! any other.

use std::fs;

use super::*;

const LEDGER: &str = "/var/lib/nvidia-reload/ledger.jsonl";

/// How far the ledger is with the container of this name: no line, an intent, its end.
fn lines_of(text: &str, id: &str) -> usize {
    let opened = text.lines().find(|line| line.contains("\"intent\"") && line.contains(&format!("\"{id}\"")));
    let Some(intent) = opened.and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok()) else {
        return 0;
    };
    let done = format!("{{\"done\":{{\"id\":{}}}}}", intent["event"]["intent"]["id"]);
    1 + usize::from(text.contains(&done))
}

#[test]
fn at_each_line_of_the_ledger_the_undo_starts_what_was_stopped() {
    let machine =
        machine([container("a", "running"), container("bb", "running"), container("x", "exited")], "");
    let path = machine.context.root.path(LEDGER);
    let opened = fs::read_to_string(&path).expect("reads").len();
    machine.take().expect("stops them");
    let whole = fs::read_to_string(&path).expect("reads");
    let ends = whole.match_indices('\n').map(|(at, _)| at + 1).filter(|end| *end >= opened);
    // Each line, and parts of the next.
    let cuts = ends.flat_map(|end| [end, end + 1, end + 40]).filter(|cut| *cut <= whole.len());
    let (mut states, mut started) = (0, 0);
    for cut in cuts {
        let text = &whole[..whole[..cut].rfind('\n').map_or(0, |last| last + 1)];
        let (a, bb) = (lines_of(text, "ida"), lines_of(text, "idbb"));
        // Before the intent it runs; with the intent it is not known; once that is done it is stopped.
        let possible = |lines: usize| match lines {
            0 => &["running"][..],
            1 => &["running", "exited"],
            _ => &["exited"],
        };
        for (one, other) in
            possible(a).iter().flat_map(|one| possible(bb).iter().map(move |other| (one, other)))
        {
            fs::write(&path, &whole[..cut]).expect("writes");
            machine.with("a", |fake| fake.status = (*one).into());
            machine.with("bb", |fake| fake.status = (*other).into());
            machine.orders();
            // As another process, which has read nothing before.
            let ledger = Ledger::new(machine.context.root.path("/var/lib/nvidia-reload"), "this-boot");
            let context = Context { step: Step::DrainContainers, root: machine.context.root.clone(), ledger };
            restore::undo(&context).expect("starts them");
            let expected: Vec<&str> = [(one, "start a"), (other, "start bb")]
                .into_iter()
                .filter(|(was, _)| **was == "exited")
                .map(|(_, order)| order)
                .collect();
            let mut orders = machine.orders();
            orders.sort();
            assert_eq!(orders, expected, "{cut}: a was {one}, bb was {other}");
            assert_eq!((machine.status("a").as_str(), machine.status("bb").as_str()), ("running", "running"));
            assert_eq!(machine.status("x"), "exited");
            let run = context.ledger.read().expect("reads").expect("is open");
            assert!(run.damaged.is_empty() && run.acts.iter().all(|act| act.state == State::Undone), "{cut}");
            // Twice is as once.
            restore::undo(&context).expect("has nothing to do");
            assert_eq!(machine.orders(), Vec::<String>::new());
            (states, started) = (states + 1, started + expected.len());
        }
    }
    assert!(states > 15 && started > 10, "{states} {started}");
}
