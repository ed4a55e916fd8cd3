// SPDX-License-Identifier: MIT
//! Unbinds the virtual terminals from NVIDIA's framebuffer, and binds them again.
//!
//! With modeset and fbdev on, nvidia-drm has a framebuffer, and a console bound to it keeps the module in use. Only the
//! framebuffer console is unbound, and only if one of its terminals is on NVIDIA's framebuffer: on most servers it is on
//! the BMC's.

#![forbid(unsafe_code)]

mod console;
#[cfg(test)]
mod crash_tests;

use std::process::ExitCode;

use anyhow::Result;
use console::{bind, is_bound};
use holders::Scope;
use ledger::{Console, NotDone, Object, Step};
use step::{Context, OurUnits, RunRequest, Stop, Undo};

fn main() -> ExitCode {
    step::main(Step::UnbindVt, run, undo)
}

fn run(context: &Context) -> Result<()> {
    // The first step that a drained machine has not done. PID 1 is only asked where it may be one: that takes as
    // long as all the rest of a step.
    let run = context.ledger.read()?;
    let may_be_held = run.as_ref().is_none_or(|run| run.snapshot.hold != Some(false))
        || RunRequest::read(&context.root)?.is_some_and(|asked| asked.hold);
    if may_be_held && !OurUnits::ask()?.may_go_beyond_drained() {
        return Err(Stop::not_in_this_run(
            "the machine is drained, and would not be after this",
            "`nvidia-reload start` restores its workloads; then start again",
        )
        .into());
    }
    let mut consoles = holders::consoles(&context.root)?;
    let scope: Scope = run.iter().flat_map(|run| run.snapshot.chosen_nodes()).collect();
    consoles.retain(|console| console.framebuffers.iter().any(|name| scope.has_node(name)));
    if consoles.is_empty() {
        context.info("no console is on a framebuffer of NVIDIA's driver");
    }
    for holders::Console { name: vtcon, driver, .. } in consoles {
        let console = Console { vtcon: vtcon.clone(), driver };
        context.ledger.act(Step::UnbindVt, Object::Console(console), || {
            bind(&context.root, &vtcon, false).map_err(NotDone::Unchanged)
        })?;
        context.info(format!("{vtcon} is unbound from NVIDIA's framebuffer"));
    }
    Ok(())
}

fn undo(context: &Context) -> Result<()> {
    let Some(undo) = Undo::begin(context)? else { return Ok(()) };
    for act in undo.of_this_boot(undo.run.outstanding(Step::UnbindVt)) {
        let Object::Console(console) = &act.object else { continue };
        let bound = is_bound(&context.root, &console.vtcon).and_then(|is_bound| match is_bound {
            true => Ok(()),
            false => bind(&context.root, &console.vtcon, true),
        });
        undo.note(&act, bound);
    }
    undo.end("not restored")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ledger::Ledger;
    use step::Root;

    use super::*;

    #[test]
    fn a_ledger_that_cannot_be_written_and_a_console_that_is_gone_keep_no_other_unbound() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let ledger = Ledger::new(root.path("/var/lib/nvidia-reload"), "this-boot");
        ledger.open(ledger::Snapshot::default()).expect("opens");
        let bound = |vtcon: &str| root.path(format!("/sys/class/vtconsole/{vtcon}/bind"));
        for vtcon in ["vtcon0", "vtcon1", "vtcon2"] {
            fs::create_dir_all(bound(vtcon).parent().expect("has a parent")).expect("creates");
            fs::write(bound(vtcon), "0\n").expect("writes");
            let console = Console { vtcon: vtcon.into(), driver: "(M) frame buffer device".into() };
            ledger.intent(Step::UnbindVt, Object::Console(console)).expect("writes").leave_open();
        }
        fs::remove_file(bound("vtcon1")).expect("removes");
        // Who writes takes it first.
        let lock = root.path("/var/lib/nvidia-reload/ledger.lock");
        fs::remove_file(&lock).expect("removes");
        fs::create_dir(&lock).expect("is in the way");
        let context = Context { step: Step::UnbindVt, root: root.clone(), ledger };
        let error = undo(&context).expect_err("nothing is written").to_string();
        for vtcon in ["vtcon0", "vtcon2"] {
            assert_eq!(fs::read_to_string(bound(vtcon)).expect("reads"), "1", "{vtcon}");
            assert!(error.contains(vtcon), "{error}");
        }
        fs::remove_dir(&lock).expect("removes");
        undo(&context).expect_err("one is gone");
        let run = context.ledger.read().expect("reads").expect("is open");
        assert_eq!(run.acts.iter().filter(|act| act.state == ledger::State::Undone).count(), 2);
    }
}
