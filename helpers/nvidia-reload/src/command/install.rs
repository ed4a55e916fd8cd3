// SPDX-License-Identifier: MIT
//! `nvidia-reload install` and `nvidia-reload rollback` to a driver in a slot: reloads that exchange the driver
//! on disk while none is loaded.

use ledger::Install as Driver;
use step::RunRequest;

use super::propose::Answer;
use super::reload::{Launch, run};
use super::{Place, guard};
use crate::cli::{Install, Reload};
use crate::fault::Result;
use crate::kind::Kind;
use crate::{installer, slots};

/// Checks the file, asks, builds, and reloads with the driver in it.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn install(arguments: &Install, place: &mut Place) -> Result<Answer> {
    guard::root("install")?;
    if !arguments.reload.consent.dry_run {
        guard::switched_on(&place.root)?;
    }
    let installer = installer::check(&arguments.file)?;
    slots::of_loaded(&place.root)?;
    let version = &installer.version;
    let mut prepare = |place: &mut Place| {
        place.terminal.note(&format!("Building modules of {version} for the running kernel.\n"));
        let file = installer::build(&place.root, &installer, &arguments.arguments)?;
        Ok(Driver::Installer { version: version.clone(), file, arguments: arguments.arguments.clone() })
    };
    let launch = Launch {
        command: "install",
        kind: Kind::Install,
        gpus: &[],
        question: format!("Build and install driver {version}, and reload now?"),
        exchange: Some((version, &mut prepare)),
    };
    let answer = run(launch, &arguments.reload, place);
    // One that goes on in systemd needs what was built.
    let goes_on = match &answer {
        Ok(Answer::Report(report)) => report.is_left_to_systemd(),
        // Nothing was built for it, and another may be under way.
        Ok(Answer::Plan(_)) => true,
        Err(_) => {
            let asked = RunRequest::read(&place.root)?.is_some_and(|asked| asked.install.is_some());
            asked || step::open_ledger(&place.root)?.read()?.is_some()
        }
    };
    if !goes_on {
        installer::clear(&place.root)?;
    }
    answer
}

/// Asks, and reloads with a driver that is in a slot: `version`, or the newest that is not loaded.
///
/// # Errors
/// It may not begin; nothing was touched.
pub fn back_to(version: Option<&str>, arguments: &Reload, place: &mut Place) -> Result<Answer> {
    let slot = slots::choose(&place.root, version)?;
    slots::of_loaded(&place.root)?;
    let version = slot.manifest.version.clone();
    let question = format!("Put driver {version} on disk, and reload now?");
    let put_on_disk = version.clone();
    let mut prepare = move |_: &mut Place| Ok(Driver::Slot { version: put_on_disk.clone() });
    let launch = Launch {
        command: "rollback",
        kind: Kind::Rollback,
        gpus: &[],
        question,
        exchange: Some((&version, &mut prepare)),
    };
    run(launch, arguments, place)
}
