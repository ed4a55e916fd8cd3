//! Exchanges the driver's files on disk while no driver is loaded, where that was asked for; and puts
//! those of the old driver back when the new one failed.

mod back;
mod exchange;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ledger::Step;
use step::{Context, Install};

fn main() -> ExitCode {
    step::main(Step::InstallDriver, run, back::undo)
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    match Install::take(&context.root)? {
        // The driver that is on disk is what is loaded next.
        None => Ok(()),
        Some(Install::Slot { version }) => exchange::from_slot(context, &run, &version),
        Some(Install::Installer { version, file, arguments }) => {
            exchange::by_installer(context, &run, &version, &file, &arguments)
        }
    }
}
