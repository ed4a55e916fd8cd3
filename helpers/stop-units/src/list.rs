// SPDX-License-Identifier: MIT
//! What would be stopped, for those who plan; nothing is changed.

use std::io::Write;

use anyhow::{Context as _, Result};
use bus::Manager;
use holders::Guarded;
use serde::Serialize;
use step::{Context, Guard, text};

use crate::closure::{Planned, closure};
use crate::stop::{by_manager, shown};
use crate::{users, wanted};

/// The name and version of the JSON.
const SCHEMA: &str = "nvidia-reload.units/1";

/// What would be stopped.
#[derive(Debug, Serialize)]
struct List {
    schema: &'static str,
    /// In the order of the stops; the reverse is the order in which they come back.
    units: Vec<Entry>,
    /// Why that is not possible, a sentence each.
    refused: Vec<String>,
    /// Users whose managers cannot be asked: what holds the GPU is killed.
    unasked: Vec<Unasked>,
}

/// A user whose manager cannot be asked.
#[derive(Debug, Serialize)]
struct Unasked {
    user: u32,
    /// Why.
    reason: String,
}

/// A unit that would be stopped.
#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    /// The user whose manager it is; null for the system's.
    user: Option<u32>,
    /// `holder`, `keeper` (PID 1 keeps a descriptor for it), `service` (a holder that others need),
    /// `trigger` or `dependent`.
    role: &'static str,
}

impl List {
    fn add(&mut self, user: Option<u32>, plan: Vec<Planned>) {
        let stopped = plan.into_iter().filter(|planned| planned.up);
        self.units.extend(stopped.map(|planned| Entry {
            name: planned.name,
            user,
            role: planned.role.word(),
        }));
    }
}

/// Prints the units that would be stopped now, for the GPUs with these device nodes, or for all.
pub(crate) fn list(context: &Context, json: bool, nodes: &[String]) -> Result<()> {
    let config = context.config()?;
    let protected = Guard::read(&context.root, &config.units.protect)?;
    let found = wanted::of_all(context, &config, nodes)?;
    let mut list = List { schema: SCHEMA, units: Vec::new(), refused: Vec::new(), unasked: Vec::new() };
    let (system, users) = by_manager(&found);
    if !system.is_empty() {
        let guard = Guarded { user: None, units: &protected };
        let plan = Manager::system()
            .map_err(anyhow::Error::from)
            .and_then(|manager| closure(&manager, &system, guard));
        match plan {
            Ok(plan) => list.add(None, plan),
            Err(error) => list.refused.push(format!("{error:#}")),
        }
    }
    let plans = users::side_by_side(users.into_iter().collect(), |(uid, units)| {
        (uid, users::plan(&context.root, uid, &units, &protected, users::PLAN).map(|(_, plan)| plan))
    });
    for (uid, plan) in plans {
        match plan {
            Ok(plan) => list.add(Some(uid), plan),
            Err(error) => list.unasked.push(Unasked { user: uid, reason: format!("{error:#}") }),
        }
    }
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", text::json(&list).context("print the units")?)?;
        return Ok(());
    }
    for unit in &list.units {
        writeln!(out, "{}: {}", text::clean(&shown(unit.user, &unit.name)), unit.role)?;
    }
    for Unasked { user, reason } in &list.unasked {
        let line = format!("the units of user {user} cannot be stopped: {reason}");
        writeln!(out, "{}", text::clean(&line))?;
    }
    for refused in &list.refused {
        writeln!(out, "refused: {}", text::clean(refused))?;
    }
    Ok(())
}
