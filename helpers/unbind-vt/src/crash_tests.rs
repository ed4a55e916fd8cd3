// SPDX-License-Identifier: MIT
//! Wherever the power goes while a console is unbound, the undo binds it, and nothing that was not unbound.

use std::fs;
use std::os::unix::fs::symlink;

use ledger::{Ledger, Snapshot, State};
use step::Root;

use super::*;

const BOUND: &str = "/sys/class/vtconsole/vtcon1/bind";
const OTHERS: &str = "/sys/class/vtconsole/vtcon0/bind";
const LEDGER: &str = "/var/lib/nvidia-reload/ledger.jsonl";

/// A machine whose console is on the driver's framebuffer.
fn machine() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let made = |path: &str| {
        let path = root.path(path);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
        path
    };
    for (path, text) in [
        ("/sys/module/nvidia/refcnt", "0\n"),
        ("/sys/module/nvidia/holders/.keep", ""),
        ("/sys/class/vtconsole/vtcon0/name", "(S) dummy device\n"),
        (OTHERS, "0\n"),
        ("/sys/class/vtconsole/vtcon1/name", "(M) frame buffer device\n"),
        (BOUND, "1\n"),
    ] {
        fs::write(made(path), text).expect("writes");
    }
    for (path, target) in [
        ("/sys/module/nvidia/drivers/pci:nvidia", "../../../bus/pci/drivers/nvidia"),
        ("/sys/bus/pci/drivers/nvidia/0000:01:00.0", "../../../../devices/pci0000:00/0000:01:00.0"),
        ("/sys/class/graphics/fb0", "../../devices/pci0000:00/0000:01:00.0/graphics/fb0"),
    ] {
        symlink(target, made(path)).expect("links");
    }
    (directory, root)
}

fn context(root: &Root) -> Context {
    let ledger = Ledger::new(root.path("/var/lib/nvidia-reload"), "this-boot");
    Context { step: Step::UnbindVt, root: root.clone(), ledger }
}

#[test]
fn at_each_byte_of_the_ledger_the_undo_binds_what_was_unbound() {
    let (_directory, root) = machine();
    let text = |path: &str| fs::read_to_string(root.path(path)).expect("reads");
    context(&root).ledger.open(Snapshot { hold: Some(false), ..Snapshot::default() }).expect("opens");
    let opened = text(LEDGER).len();
    run(&context(&root)).expect("unbinds");
    assert_eq!(text(BOUND), "0");
    let whole = text(LEDGER);
    let ends: Vec<usize> = whole.match_indices('\n').map(|(at, _)| at + 1).collect();
    assert_eq!((ends.len(), ends[0]), (3, opened), "opened, intent, done");
    for cut in opened..=whole.len() {
        // The line is on disk before the console is unbound, and the next one comes after that.
        let bound: &[&str] = match ends.iter().filter(|end| **end <= cut).count() {
            1 => &["1"],
            2 => &["1", "0"],
            _ => &["0"],
        };
        for bound in bound {
            fs::write(root.path(LEDGER), &whole[..cut]).expect("writes");
            fs::write(root.path(BOUND), bound).expect("writes");
            for _ in 0..2 {
                let context = context(&root);
                undo(&context).expect("binds");
                assert_eq!((text(BOUND), text(OTHERS).as_str()), ("1".into(), "0\n"), "{cut} {bound}");
                let run = context.ledger.read().expect("reads").expect("is open");
                assert!(
                    run.damaged.is_empty() && run.acts.iter().all(|act| act.state == State::Undone),
                    "{cut}"
                );
                assert_eq!(run.acts.len(), usize::from(cut >= ends[1]));
            }
        }
    }
}
