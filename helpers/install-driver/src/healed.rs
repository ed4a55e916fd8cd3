// SPDX-License-Identifier: MIT
//! Programs find the libraries of the driver that is loaded next: those on disk. Where that one fails, they find
//! those of the old one again, which were found before.

use anyhow::{Context as _, Result};
use ledger::{Act, Object, Step};
use slots::{Healed, end, heal, lock_for_run, slots};
use step::{Context, Undo};

use crate::exchange::must_be_whole;

/// Ends it, if the loaded driver's libraries are found before those on disk.
pub(crate) fn lift(context: &Context) -> Result<()> {
    let Some(healed) = Healed::read(&context.root)? else { return Ok(()) };
    let _lock = lock_for_run(context)?;
    let Healed { version, instead_of, cdi, .. } = healed;
    let object = Object::Healed { version, instead_of, cdi };
    context.ledger.act(Step::InstallDriver, object, || Ok(end(&context.root).map(drop)?))?;
    context.info("the libraries on disk are found again");
    Ok(())
}

/// Begins it again where `acts` ended it, unless the files on disk are the old driver's again: `is_back` says so.
pub(crate) fn set_again(undo: &Undo, acts: Vec<Act>, is_back: bool) {
    // A boot takes the driver on disk.
    for act in undo.of_this_boot(acts) {
        let Object::Healed { version, instead_of, cdi } = &act.object else { continue };
        let result = if is_back { Ok(()) } else { again(undo.context, version, instead_of.clone(), cdi) };
        undo.note(&act, result);
    }
}

fn again(context: &Context, version: &str, instead_of: Option<String>, cdi: &[String]) -> Result<()> {
    let _lock = lock_for_run(context)?;
    let slot = slots(&context.root)?
        .into_iter()
        .find(|slot| slot.manifest.version == version)
        .with_context(|| format!("driver {version} is in no slot"))?;
    must_be_whole(&slot)?;
    let mut healed = heal(&context.root, &slot, instead_of)?;
    // The undo of drain-containers, which comes later, has them written again.
    let there = cdi.iter().filter(|path| context.root.path(path).exists()).cloned().collect();
    healed.save_cdi(&context.root, there)
}
