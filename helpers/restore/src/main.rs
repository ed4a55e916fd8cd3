//! Gives everything back once the new driver serves: the undos of the steps, run forward.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use ledger::Step;
use step::{Context, undo_steps};

/// What is given back after a good run, in this order: the reverse of the taking. The settings come
/// first: workloads find the GPUs as they left them, and MIG cannot be set up under them.
const STEPS: [Step; 4] = [Step::Settings, Step::UnbindVt, Step::StopUnits, Step::DrainContainers];

fn main() -> ExitCode {
    // What could not be given back is tried again by the steps' own undos, which come next.
    step::main(Step::Restore, run, |_| Ok(()))
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    let took = |step: &Step| run.acts.iter().any(|act| act.step == *step);
    let steps: Vec<Step> = STEPS.into_iter().filter(took).collect();
    context.status("giving back what was stopped");
    let failed = undo_steps(context, &steps);
    if !failed.is_empty() {
        bail!("not everything is back: {}", failed.join("; "));
    }
    Ok(())
}
