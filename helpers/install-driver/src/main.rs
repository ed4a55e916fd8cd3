// SPDX-License-Identifier: MIT
//! Exchanges the driver's files on disk while no driver is loaded, if the run request asks for it; and restores the
//! files of the previous driver when the new one failed.

#![forbid(unsafe_code)]

mod back;
mod disk;
mod exchange;
mod healed;
mod packages;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ledger::{Install, Step};
use step::Context;

fn main() -> ExitCode {
    step::main(Step::InstallDriver, run, back::undo)
}

fn run(context: &Context) -> Result<()> {
    let run = context.ledger.read()?.context("there is no open run: start nvidia-reload.target")?;
    healed::lift(context)?;
    if let Some(install) = &run.snapshot.install {
        packages::wait(context)?;
        match install {
            Install::Slot { version } => exchange::from_slot(context, &run, version)?,
            Install::Installer { version, file, arguments } => {
                exchange::by_installer(context, &run, version, file, arguments)?;
            }
        }
    }
    // The driver that is on disk is what is loaded next.
    disk::can_be_loaded(context, &run)
}

#[cfg(test)]
mod tests {
    use step::Root;

    /// A slot of driver 535.261.03 for `kernel`, without files.
    pub(crate) fn slot(root: &Root, kernel: &str) -> slots::Slot {
        let directory = root.path(slots::DIRECTORY).join("535.261.03");
        std::fs::create_dir_all(&directory).expect("creates");
        let manifest = format!(
            r#"{{"schema": "nvidia-reload.slot/1", "version": "535.261.03", "kernel": "{kernel}",
                "made_usec": 1, "origin": "names", "packages": [], "files": []}}"#
        );
        std::fs::write(directory.join("manifest.json"), manifest).expect("writes");
        slots::slots(root).expect("reads").remove(0)
    }
}
