// SPDX-License-Identifier: MIT
//! Who has the driver's files and holds no GPU: named before the run, since no run restarts them.

use anyhow::Result;
use holders::{Bystanders, Guest, Holder, MpsControl, Owner, bystanders};
use step::{Action, Context};

use crate::findings::Findings;

/// More than this are counted and not named: a user can have any number.
const MOST_NAMED: usize = 12;

/// Warns of them; not of those that are dealt with as `holders` or by `actions`.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn assess(
    context: &Context,
    holders: &[Holder],
    actions: &[Action],
    findings: &mut Findings,
) -> Result<()> {
    let Bystanders { mut guests, mut mps } = bystanders(&context.root)?;
    guests.retain(|guest| !holders.iter().any(|holder| is_in(guest, holder)));
    mps.retain(|control| !is_stopped(control, holders, actions));
    for guest in guests.iter().take(MOST_NAMED) {
        findings.warn(
            format!("{guest} holds no GPU and has {} mounted: it is not restarted", guest.has()),
            format!("after the run, {}", guest.remedy()),
        );
    }
    for control in mps.iter().take(MOST_NAMED) {
        let MpsControl { pid, uid, owner } = control;
        let remedy = match owner {
            Owner::SystemUnit { unit, .. } if unit.ends_with(".service") => {
                format!("`systemctl restart {unit}` after the run")
            }
            _ => "end it with `echo quit | nvidia-cuda-mps-control` as its user, and start it again after the run"
                .to_owned(),
        };
        findings.warn(
            format!("the MPS control daemon {pid} of user {uid} holds no GPU: it is not restarted"),
            remedy,
        );
    }
    let more = guests.len().saturating_sub(MOST_NAMED) + mps.len().saturating_sub(MOST_NAMED);
    if more > 0 {
        let remedy = "restart them after the run";
        findings.warn(format!("{more} more guests and MPS control daemons are not restarted"), remedy);
    }
    Ok(())
}

fn is_in(guest: &Guest, holder: &Holder) -> bool {
    matches!(&holder.owner, Owner::Container(owner) if owner.engine == guest.engine && owner.id == guest.name)
}

/// Whether the run ends it, or stops its unit.
fn is_stopped(control: &MpsControl, holders: &[Holder], actions: &[Action]) -> bool {
    let unit = match &control.owner {
        Owner::SystemUnit { unit, .. } => unit.clone(),
        Owner::UserUnit { uid, unit } => format!("{unit} of user {uid}"),
        _ => String::new(),
    };
    holders.iter().any(|holder| holder.pid == control.pid)
        || actions.iter().any(|action| action.object == unit)
}

#[cfg(test)]
mod tests {
    use ledger::Step;

    use super::*;

    #[test]
    fn a_daemon_whose_unit_is_stopped_comes_back_with_it() {
        let unit = |unit: &str| Owner::SystemUnit { unit: unit.into(), slice: "system.slice".into() };
        let control = |owner| MpsControl { pid: 7, uid: 0, owner };
        let action = |object: &str| Action {
            step: Step::StopUnits,
            object: object.into(),
            what: String::new(),
            why: String::new(),
            pids: Vec::new(),
            comes_back: true,
        };
        let actions = [action("mps.service"), action("mps.service of user 7")];
        let users = Owner::UserUnit { uid: 7, unit: "mps.service".into() };
        for (owner, stopped) in [
            (unit("mps.service"), true),
            (unit("other.service"), false),
            (users, true),
            (Owner::Process, false),
        ] {
            assert_eq!(is_stopped(&control(owner.clone()), &[], &actions), stopped, "{owner:?}");
        }
    }
}
