// SPDX-License-Identifier: MIT
//! Our own units, for siblings that speak no D-Bus themselves.

use anyhow::Result;
use ledger::Step;
use step::{DRAINED, OFFLINE, OurUnits, RELOAD, RESET};

/// Prints which are up, and which are about to be started.
pub(crate) fn tell() -> Result<()> {
    let manager = bus::Manager::system()?;
    let mut names: Vec<String> = [RELOAD, RESET, DRAINED, OFFLINE].map(str::to_owned).to_vec();
    names.extend(Step::ALL.into_iter().chain([Step::GpuReset, Step::Rollback]).map(Step::unit));
    let patterns: Vec<&str> = names.iter().map(String::as_str).collect();
    let listed = manager.units(&patterns)?;
    let up = listed.into_iter().filter(|unit| unit.active.is_up()).map(|unit| unit.name).collect();
    let jobs = manager.jobs()?;
    let starts = jobs.into_iter().filter(|job| job.kind == "start" && names.contains(&job.unit));
    let starting = starts.map(|job| job.unit).collect();
    println!("{}", serde_json::to_string(&OurUnits { up, starting })?);
    Ok(())
}
