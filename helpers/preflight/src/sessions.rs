//! What logind keeps for sessions, and would be made to close.

use anyhow::Result;
use holders::{Holder, sessions_of};
use ledger::{Object, Session, Step};
use step::{Action, Config, Context, Logind};

use crate::findings::Findings;
use crate::of_users::devices;

/// What would be done so that `logind` lets go.
///
/// # Errors
/// What logind says of its sessions cannot be read.
pub(crate) fn released(
    context: &Context,
    config: &Config,
    logind: &Holder,
    findings: &mut Findings,
) -> Result<Vec<Action>> {
    let held = devices(logind);
    let sessions = sessions_of(&context.root, logind)?;
    let mut actions: Vec<Action> = sessions
        .iter()
        .flatten()
        .map(|session| Action {
            step: Step::StopUnits,
            object: Object::Session(Session { id: session.id.clone(), user: session.uid }).to_string(),
            what: "have systemd-logind close them".into(),
            why: format!("systemd-logind keeps {held} open for it, and no display server uses that"),
            pids: Vec::new(),
            comes_back: false,
        })
        .collect();
    match config.units.logind {
        Logind::Restart => actions.push(Action {
            step: Step::StopUnits,
            object: "systemd-logind.service".into(),
            what: "restart, if it keeps them all the same".into(),
            why: "units.logind is \"restart\"".into(),
            pids: Vec::new(),
            comes_back: true,
        }),
        Logind::Release if sessions.is_none() => findings.refuse(
            format!("systemd-logind keeps {held} open, and not all of it for a session"),
            "`systemctl restart systemd-logind.service`, or set units.logind = \"restart\"",
        ),
        Logind::Release => {}
    }
    Ok(actions)
}
