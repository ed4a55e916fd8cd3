// SPDX-License-Identifier: MIT
//! Restores the settings of the GPUs after the driver was loaded.
//!
//! It has no unit for its work: rmmod-chain records the settings, which are lost with the driver, and each step that loads
//! a driver runs this before the workloads start. NVML is called in a child process, so that a call that hangs costs only
//! its time.

#![forbid(unsafe_code)]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use gpu::{Restored, restore, talk};
use ledger::{Act, Object, Settings, Step};
use modules::driver_version;
use slots::library_in_slot;
use step::{Context, Undo};

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
        fallback: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    step::main_with(
        Step::Settings,
        |_| bail!("there is nothing to run: `undo` restores the settings"),
        undo,
        |_, Verb::Apply { fallback }| apply(fallback),
    )
}

fn undo(context: &Context) -> Result<()> {
    let Some(undo) = Undo::begin(context)? else { return Ok(()) };
    let mut acts = undo.of_this_boot(undo.run.outstanding(Step::Settings));
    acts.retain(|act| settings_of(act).is_some());
    // Oldest first: in the order of the GPUs.
    acts.reverse();
    let settings: Vec<Settings> = acts.iter().filter_map(|act| settings_of(act)).cloned().collect();
    if !settings.is_empty() {
        match set(context, settings) {
            Ok(restored) => {
                acts.iter().zip(restored).for_each(|(act, restored)| record(&undo, act, &restored))
            }
            Err(error) => {
                undo.problem(format!("{error:#}"));
                acts.iter().for_each(|act| undo.also_failed(act.id, &act.object, &error));
            }
        }
    }
    undo.end("not everything is set on the GPUs as it was")
}

fn settings_of(act: &Act) -> Option<&Settings> {
    match &act.object {
        Object::Settings(settings) => Some(settings),
        _ => None,
    }
}

/// Has it set by a process of its own.
fn set(context: &Context, wanted: Vec<Settings>) -> Result<Vec<Restored>> {
    // To ask NVML without a driver makes the kernel load one.
    let Some(version) = driver_version(&context.root)? else {
        bail!("the driver is not loaded: nothing can be set");
    };
    context.status("setting the GPUs as they were");
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.arg("apply").arg("--fallback").arg(library_in_slot(&context.root, &version));
    let restored: Option<Vec<Restored>> = talk(&mut command, &serde_json::to_vec(&wanted)?, TIME)?;
    let restored = restored.with_context(|| format!("NVML did not answer in {} seconds", TIME.as_secs()))?;
    if restored.len() != wanted.len() {
        bail!("expected the results of {} GPUs, and got {}", wanted.len(), restored.len());
    }
    Ok(restored)
}

/// Notes what became of one GPU.
fn record(undo: &Undo, act: &Act, restored: &Restored) {
    let (context, name) = (undo.context, &act.object);
    for note in &restored.notes {
        context.warn(format!("{name}: {note}"));
    }
    if !restored.differences.is_empty() {
        return undo.failed(act.id, name, restored.differences.join("; "));
    }
    let settings = settings_of(act).into_iter().flat_map(|settings| &settings.settings);
    let all: Vec<String> = settings.map(ToString::to_string).collect();
    context.info(format!("{name} are restored: {}", all.join(", ")));
    undo.restored(act.id, name);
}

fn apply(fallback: Option<PathBuf>) -> Result<ExitCode> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).context("read standard input")?;
    let wanted: Vec<Settings> = serde_json::from_slice(&text).context("understand what is to be set")?;
    println!("{}", serde_json::to_string(&restore(&wanted, fallback.as_deref()))?);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use gpu::Restored;
    use ledger::{Ledger, Snapshot, State};
    use step::Root;

    use super::*;

    /// A run of the boot `then` that took the settings of two GPUs.
    fn context(now: &str) -> (tempfile::TempDir, Context) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let ledger = |boot| Ledger::new(root.path("/lib"), boot);
        ledger("then").open(Snapshot::default()).expect("opens");
        for pci in ["A", "B"] {
            let settings = Settings { pci: pci.into(), uuid: format!("GPU-{pci}"), settings: Vec::new() };
            ledger("then").act(Step::Settings, Object::Settings(settings), || Ok(())).expect("writes");
        }
        let ledger = ledger(now);
        (directory, Context { step: Step::Settings, root, ledger })
    }

    fn states(context: &Context) -> Vec<State> {
        let run = context.ledger.read().expect("reads").expect("is open");
        run.acts.into_iter().map(|act| act.state).collect()
    }

    #[test]
    fn each_gpu_is_back_or_not_by_what_was_read_back_of_it() {
        let restored = |differences: &[&str], notes: &[&str]| Restored {
            differences: differences.iter().map(ToString::to_string).collect(),
            notes: notes.iter().map(ToString::to_string).collect(),
            ..Restored::default()
        };
        for (restored, expected, problem) in [
            (restored(&[], &[]), State::Undone, None),
            // Worth a word, and no difference in what was asked for.
            (restored(&[], &["another id"]), State::Undone, None),
            (
                restored(&["power limit: refused", "MIG is off"], &[]),
                State::UndoFailed("power limit: refused; MIG is off".into()),
                Some("not all: settings of GPU A (GPU-A): power limit: refused; MIG is off"),
            ),
        ] {
            let (_directory, context) = context("then");
            let undo = Undo::begin(&context).expect("reads").expect("is open");
            record(&undo, &undo.run.acts[0], &restored);
            let error = undo.end("not all").err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), problem, "{restored:?}");
            assert_eq!(states(&context), [expected, State::Done], "{restored:?}");
        }
    }

    #[test]
    fn nothing_is_set_without_a_driver_or_for_another_boot() {
        let why = "the driver is not loaded: nothing can be set";
        for (now, expected, problem) in [
            ("another", State::Undone, None),
            (
                "then",
                State::UndoFailed(why.into()),
                Some(format!("not everything is set on the GPUs as it was: {why}")),
            ),
        ] {
            let (_directory, context) = context(now);
            let error = undo(&context).err().map(|error| error.to_string());
            assert_eq!(error, problem, "in the boot {now}");
            assert_eq!(states(&context), vec![expected; 2], "in the boot {now}");
        }
    }
}
