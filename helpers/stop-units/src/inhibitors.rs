// SPDX-License-Identifier: MIT
//! Who blocks a shutdown, for siblings that speak no D-Bus themselves.

use anyhow::Result;
use step::Inhibitor;

/// Prints them.
pub(crate) fn list() -> Result<()> {
    let inhibitor = |bus::Blocker { who, why, uid, pid }: bus::Blocker| Inhibitor { who, why, uid, pid };
    let all: Vec<Inhibitor> = bus::blockers()?.into_iter().map(inhibitor).collect();
    println!("{}", serde_json::to_string(&all)?);
    Ok(())
}
