//! Whether the driver is as a run that is over should have left it.

use anyhow::Result;
use ledger::Run;
use step::Root;

use crate::gate;
use crate::loaded::loaded;

/// What is not as it should be after `run`: after its commit the gate counts, before it the modules
/// as well, and after a failure that they are the old ones. Modules of another boot do not count: that boot loaded its own.
///
/// # Errors
/// `/sys/module` or the gate cannot be looked at.
pub fn differences(root: &Root, run: &Run, boot: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if gate::is_shut(root)? {
        found.push(format!("the gate is still shut: remove {}", gate::FILE));
    }
    if run.committed || run.boot != boot {
        return Ok(found);
    }
    for before in &run.snapshot.modules {
        let version = |module: &ledger::Module| module.version.clone().unwrap_or_else(|| "unknown".into());
        match loaded(root, &before.name)? {
            None => found.push(format!("{} is not loaded", before.name)),
            Some(now) if run.was_given_up() && now.module.version != before.version => found.push(format!(
                "{} is loaded in version {}, it was {}",
                before.name,
                version(&now.module),
                version(before)
            )),
            Some(_) => {}
        }
    }
    Ok(found)
}
