//! Gives everything back once the new driver serves: the undos of the steps, run forward.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use ledger::{Run, Step};
use step::{Context, stop_undos, undo_steps};

/// What is given back after a good run, in this order: the reverse of the taking. The settings come
/// first: workloads find the GPUs as they left them, and MIG cannot be set up under them.
const STEPS: [Step; 4] = [Step::Settings, Step::UnbindVt, Step::StopUnits, Step::DrainContainers];

fn main() -> ExitCode {
    step::main(Step::Restore, run, undo)
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    context.status("giving back what was stopped");
    let failed = undo_steps(context, &steps(&run));
    if !failed.is_empty() {
        bail!("not everything is back: {}", failed.join("; "));
    }
    Ok(())
}

/// What could not be restored is tried again by the steps' own undos, which come next. Where `run` was killed, the
/// unit that it waited for goes on, and is stopped before.
fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let left: Vec<Step> = STEPS.into_iter().filter(|step| !run.outstanding(*step).is_empty()).collect();
    let failed = stop_undos(&left);
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// The steps that took something.
fn steps(run: &Run) -> Vec<Step> {
    let took = |step: &Step| run.acts.iter().any(|act| act.step == *step);
    STEPS.into_iter().filter(took).collect()
}

#[cfg(test)]
mod tests {
    use ledger::{Event, Object, Record, Snapshot};

    use super::*;

    #[test]
    fn those_steps_are_called_that_took_something_settings_first_and_containers_last() {
        for (took, expected) in [
            (&[][..], &[][..]),
            (&[Step::DrainContainers], &[Step::DrainContainers]),
            // The driver and what was killed are none of restore's business.
            (&[Step::KillHolders, Step::RmmodChain, Step::InstallDriver, Step::ModprobeChain], &[]),
            (
                &[Step::DrainContainers, Step::StopUnits, Step::StopUnits, Step::UnbindVt, Step::Settings],
                &[Step::Settings, Step::UnbindVt, Step::StopUnits, Step::DrainContainers],
            ),
        ] {
            let object = || Object::Gate { path: "any".into() };
            let intents =
                (1..).zip(took).map(|(id, step)| Event::Intent { id, step: *step, object: object() });
            let opened = Event::Opened { snapshot: Box::new(Snapshot::default()) };
            let record = |event| Record { v: 1, run: "r".into(), boot: "b".into(), realtime_usec: 1, event };
            let records: Vec<Record> = std::iter::once(opened).chain(intents).map(record).collect();
            assert_eq!(steps(&Run::from_records(&records).expect("adds up")), expected, "{took:?}");
        }
    }
}
