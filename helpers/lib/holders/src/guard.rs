// SPDX-License-Identifier: MIT
//! What the configuration protects. A name says nothing of whose a process or a unit is: a bare one
//! guards what is root's or the system's, and for a user's the configuration names the user.

use crate::model::{Holder, Owner};
use crate::names::{is_core, is_host};
use step::Guard;

/// The units of one manager, and which of them must not be stopped.
#[derive(Debug, Clone, Copy)]
pub struct Guarded<'a> {
    /// The user whose manager it is; none for the system's.
    pub user: Option<u32>,
    /// What the configuration protects.
    pub units: &'a [Guard],
}

impl Guarded<'_> {
    /// Why `unit` must not be stopped, as the end of a sentence about it; none where it may be.
    pub fn why(&self, unit: &str) -> Option<&'static str> {
        if is_guarded(self.units, self.user, unit) {
            return Some("which the configuration protects");
        }
        (self.user.is_none() && (is_core(unit) || is_host(unit))).then_some("which is never stopped")
    }
}

/// Whether the configuration protects this unit of the system's or of a user's manager.
pub(crate) fn is_guarded(guards: &[Guard], user: Option<u32>, unit: &str) -> bool {
    guards.iter().any(|guard| guard.name == unit && guard.user == user)
}

/// Whether `guard` protects the process.
pub(crate) fn covers(guard: &Guard, holder: &Holder) -> bool {
    guard.name == holder.comm
        && match guard.user {
            Some(uid) => holder.uid == uid,
            None => holder.is_systems(),
        }
}

impl Holder {
    /// Whether it is root's, of a unit of the system, or in a container of root's engine; else it is a
    /// user's own.
    pub fn is_systems(&self) -> bool {
        self.uid == 0
            || match &self.owner {
                Owner::SystemUnit { unit, .. } => !is_host(unit),
                Owner::Container(container) => container.uid.is_none(),
                _ => false,
            }
    }

    /// Of the bare names in `units` and `processes` the one that this user's process has, or its unit,
    /// and that does not guard it.
    pub fn unguarded_by<'a>(&self, units: &'a [Guard], processes: &'a [Guard]) -> Option<&'a str> {
        if self.is_systems() {
            return None;
        }
        let bare = |guard: &&Guard| guard.user.is_none();
        let by_name = processes.iter().filter(bare).find(|guard| guard.name == self.comm);
        let by_unit = units
            .iter()
            .filter(bare)
            .find(|guard| matches!(&self.owner, Owner::UserUnit { unit, .. } if *unit == guard.name));
        by_name.or(by_unit).map(|guard| guard.name.as_str())
    }
}
