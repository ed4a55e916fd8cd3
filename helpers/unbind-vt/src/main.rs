//! Takes the virtual terminals from NVIDIA's framebuffer, and gives them back.
//!
//! With modeset and fbdev on, nvidia-drm has a framebuffer, and a console bound to it keeps the
//! module in use. Only the framebuffer console is unbound, and only when one of its terminals is on
//! NVIDIA's framebuffer: on most servers it is the BMC's, and stays.

mod console;

use std::process::ExitCode;

use anyhow::{Result, bail};
use console::{bind, is_bound};
use holders::Scope;
use ledger::{Console, Object, Step};
use step::{Context, OurUnits, Stop};

fn main() -> ExitCode {
    step::main(Step::UnbindVt, run, undo)
}

fn run(context: &Context) -> Result<()> {
    // The first step that a drained machine has not done.
    if !OurUnits::ask()?.may_go_beyond_drained() {
        return Err(Stop::not_in_this_run(
            "the machine is drained, and would not be after this",
            "`nvidia-reload start` restores its workloads; then start again",
        )
        .into());
    }
    let mut consoles = holders::consoles(&context.root)?;
    let scope: Scope = context.ledger.read()?.iter().flat_map(|run| run.snapshot.chosen_nodes()).collect();
    consoles.retain(|console| console.framebuffers.iter().any(|name| scope.has_node(name)));
    if consoles.is_empty() {
        context.info("no console is on a framebuffer of NVIDIA's driver");
    }
    for holders::Console { name: vtcon, driver, .. } in consoles {
        let console = Console { vtcon: vtcon.clone(), driver };
        let id = context.ledger.intent(Step::UnbindVt, Object::Console(console))?;
        if let Err(error) = bind(&context.root, &vtcon, false) {
            context.ledger.failed(id, format!("{error:#}"))?;
            return Err(error);
        }
        context.ledger.done(id)?;
        context.info(format!("{vtcon} is unbound from NVIDIA's framebuffer"));
    }
    Ok(())
}

fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let mut failed = Vec::new();
    for act in run.outstanding(Step::UnbindVt) {
        let Object::Console(console) = &act.object else { continue };
        if run.boot != context.ledger.boot() || is_bound(&context.root, &console.vtcon)? {
            context.ledger.undone(act.id)?;
            continue;
        }
        match bind(&context.root, &console.vtcon, true) {
            Ok(()) => context.ledger.undone(act.id)?,
            Err(error) => {
                context.ledger.undo_failed(act.id, format!("{error:#}"))?;
                failed.push(format!("{error:#}"));
            }
        }
    }
    if !failed.is_empty() {
        bail!("a console is not back: {}", failed.join("; "));
    }
    Ok(())
}
