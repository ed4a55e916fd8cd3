//! Sets on the GPUs again what was set when the driver went.
//!
//! It has no unit of its own: rmmod-chain records what goes with the driver, and whoever brings a
//! driver back calls this, before the workloads come. NVML is spoken to by a process of its own, which
//! ends when all is set, so that a call that hangs costs no more than its time.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use gpu::{Given, give_back, talk};
use ledger::{Act, Object, Settings, Step};
use modules::driver_version;
use slots::kept_library;
use step::Context;

/// NVML wakes up one GPU after the other, and an instance of MIG takes it a second to make.
const TIME: Duration = Duration::from_secs(180);

/// What else this helper does.
#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Set what standard input says, as JSON, and say what is set then; for this helper itself.
    #[command(hide = true)]
    Apply {
        /// The library to ask where the linker's does not fit the loaded driver.
        #[arg(long)]
        kept: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    step::main_with(
        Step::Settings,
        |_| bail!("there is nothing to run: what was set is given back by `undo`"),
        undo,
        |_, Verb::Apply { kept }| apply(kept),
    )
}

fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let acts = run.outstanding(Step::Settings);
    // Oldest first: in the order of the GPUs.
    let acts: Vec<(&Act, &Settings)> = acts
        .iter()
        .rev()
        .filter_map(|act| match &act.object {
            Object::Settings(settings) => Some((act, settings)),
            _ => None,
        })
        .collect();
    if acts.is_empty() {
        return Ok(());
    }
    if run.boot != context.ledger.boot() {
        // They went with that boot; whatever sets them at boot has done so.
        return context.ledger.undone_each(acts.iter().map(|(act, _)| act.id));
    }
    let mut failed = Vec::new();
    match set(context, acts.iter().map(|(_, settings)| (*settings).clone()).collect()) {
        Ok(given) => {
            for ((act, settings), given) in acts.iter().zip(given) {
                failed.extend(record(context, act, settings, &given));
            }
        }
        Err(error) => {
            failed.push(format!("{error:#}"));
            for (act, _) in &acts {
                failed.extend(unwritten(act, context.ledger.undo_failed(act.id, format!("{error:#}"))));
            }
        }
    }
    if !failed.is_empty() {
        bail!("not everything is set on the GPUs as it was: {}", failed.join("; "));
    }
    Ok(())
}

/// Has it set by a process of its own.
fn set(context: &Context, wanted: Vec<Settings>) -> Result<Vec<Given>> {
    // Whoever asks NVML without a driver makes the kernel load one.
    let Some(version) = driver_version(&context.root)? else {
        bail!("the driver is not loaded: nothing can be set");
    };
    context.status("setting the GPUs as they were");
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.arg("apply").arg("--kept").arg(kept_library(&context.root, &version));
    let given: Option<Vec<Given>> = talk(&mut command, &serde_json::to_vec(&wanted)?, TIME)?;
    let given = given.with_context(|| format!("NVML did not answer in {} seconds", TIME.as_secs()))?;
    if given.len() != wanted.len() {
        bail!("{} GPUs were to be set, and {} are told of", wanted.len(), given.len());
    }
    Ok(given)
}

/// Writes what became of one GPU; returns why it is not as it was, or not written.
fn record(context: &Context, act: &Act, settings: &Settings, given: &Given) -> Option<String> {
    let name = &act.object;
    for note in &given.notes {
        context.warn(format!("{name}: {note}"));
    }
    if given.differences.is_empty() {
        let all: Vec<String> = settings.settings.iter().map(ToString::to_string).collect();
        context.info(format!("{name} are back: {}", all.join(", ")));
        return unwritten(act, context.ledger.undone(act.id));
    }
    let reason = given.differences.join("; ");
    let unwritten = unwritten(act, context.ledger.undo_failed(act.id, &reason));
    Some([Some(format!("{name}: {reason}")), unwritten].into_iter().flatten().collect::<Vec<_>>().join("; "))
}

/// A ledger that cannot be written keeps no GPU from being set.
fn unwritten(act: &Act, noted: Result<()>) -> Option<String> {
    noted.err().map(|error| format!("{}: the ledger does not have this: {error:#}", act.object))
}

fn apply(kept: Option<PathBuf>) -> Result<ExitCode> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).context("read standard input")?;
    let wanted: Vec<Settings> = serde_json::from_slice(&text).context("understand what is to be set")?;
    println!("{}", serde_json::to_string(&give_back(&wanted, kept.as_deref()))?);
    Ok(ExitCode::SUCCESS)
}
