//! The frame of a helper: the verbs `run` and `undo`, and what an error turns into.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use ledger::{Ledger, Step};
use sd_notify::NotifyState;

use crate::journal::{Priority, log};
use crate::{Config, Exit, Root, Stop};

/// What a helper is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Do the step.
    Run,
    /// Give back what the ledger says that the step took.
    Undo,
}

/// What a step works with.
pub struct Context {
    /// Which step this is.
    pub step: Step,
    /// Where the file system starts.
    pub root: Root,
    /// The ledger of this machine.
    pub ledger: Ledger,
}

impl Context {
    /// The configuration. An undo does not ask for it: what it needs is in the ledger, and a
    /// configuration broken in the middle of a run must not keep anything from coming back.
    ///
    /// # Errors
    /// The file and key that cannot be used: a refusal.
    pub fn config(&self) -> Result<Config> {
        Config::load(&self.root).map_err(|error| {
            Stop::Refused(vec![crate::Reason::new(
                format!("the configuration cannot be used: {error:#}"),
                "mend the file and try again",
            )])
            .into()
        })
    }

    /// Writes to the journal what happens.
    pub fn info(&self, message: impl AsRef<str>) {
        log(self.step, Priority::Info, message.as_ref(), &[]);
    }

    /// Writes to the journal what deserves attention.
    pub fn warn(&self, message: impl AsRef<str>) {
        log(self.step, Priority::Warning, message.as_ref(), &[]);
    }

    /// Shows `status` as the unit's status line, which `systemctl status` and the command's live
    /// view read. Only for the eyes: without a manager to tell, nothing is lost.
    pub fn status(&self, status: impl AsRef<str>) {
        let _ = sd_notify::notify(&[NotifyState::Status(status.as_ref())]);
    }
}

#[derive(Parser)]
struct Arguments {
    /// What to do; systemd's units call the helper with both.
    verb: Verb,
}

/// The `main` of a helper that is `step`.
pub fn main(
    step: Step,
    run: impl FnOnce(&Context) -> Result<()>,
    undo: impl FnOnce(&Context) -> Result<()>,
) -> ExitCode {
    let verb = Arguments::parse().verb;
    let root = Root::system();
    let context = match open_ledger(&root) {
        Ok(ledger) => Context { step, root, ledger },
        Err(error) => return fail(step, None, &error),
    };
    let result = match verb {
        Verb::Run => run(&context),
        Verb::Undo => undo(&context),
    };
    match result {
        Ok(()) => Exit::Done.into(),
        Err(error) => fail(step, (verb == Verb::Run).then_some(&context.ledger), &error),
    }
}

/// The ledger of the machine below `root`, in this boot.
///
/// # Errors
/// The kernel's boot id cannot be read.
pub fn open_ledger(root: &Root) -> Result<Ledger> {
    Ok(Ledger::new(root.path(ledger::DIRECTORY), boot_id(root)?))
}

/// The kernel's id of this boot.
///
/// # Errors
/// It cannot be read.
pub fn boot_id(root: &Root) -> Result<String> {
    use anyhow::Context as _;
    let path = root.path("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Says why, one line first and the causes below it, and notes the failure in the open run.
fn fail(step: Step, ledger: Option<&Ledger>, error: &anyhow::Error) -> ExitCode {
    log(step, Priority::Error, &format!("{error}"), &[]);
    for cause in error.chain().skip(1) {
        log(step, Priority::Error, &format!("  because: {cause}"), &[]);
    }
    if let Some(ledger) = ledger {
        // A refusal comes before the run is opened; everything else is part of its story.
        match ledger.read() {
            Ok(Some(_)) => {
                if let Err(unwritten) = ledger.step_failed(step, format!("{error:#}")) {
                    log(step, Priority::Error, &format!("the ledger does not have this: {unwritten:#}"), &[]);
                }
            }
            Ok(None) => {}
            Err(unread) => log(step, Priority::Error, &format!("{unread:#}"), &[]),
        }
    }
    error.downcast_ref::<Stop>().map_or(Exit::Failed, Stop::exit).into()
}
