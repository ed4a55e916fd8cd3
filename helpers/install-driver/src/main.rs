//! Exchanges the driver's files on disk while no driver is loaded, where that was asked for; and puts
//! those of the old driver back when the new one failed.

mod back;
mod exchange;
mod packages;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ledger::Step;
use step::{Context, Install};

fn main() -> ExitCode {
    step::main(Step::InstallDriver, run, back::undo)
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    // The driver that is on disk is what is loaded next, unless another was asked for.
    let Some(asked) = Install::take(&context.root)? else { return Ok(()) };
    packages::wait(context)?;
    match asked {
        Install::Slot { version } => exchange::from_slot(context, &run, &version),
        Install::Installer { version, file, arguments } => {
            exchange::by_installer(context, &run, &version, &file, &arguments)
        }
    }
}
