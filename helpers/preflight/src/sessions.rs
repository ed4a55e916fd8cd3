// SPDX-License-Identifier: MIT
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
            why: format!("systemd-logind keeps {held} open for it, and no display server uses it"),
            pids: Vec::new(),
            comes_back: false,
        })
        .collect();
    match config.units.logind {
        Logind::Restart => actions.push(Action {
            step: Step::StopUnits,
            object: "systemd-logind.service".into(),
            what: "restart, so that it closes them".into(),
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

#[cfg(test)]
mod tests {
    use std::fs;

    use holders::{Device, Kind, Owner, Rdev, Via};
    use ledger::Ledger;
    use step::{Root, Verdict};

    use super::*;

    fn logind() -> Holder {
        let device = Device {
            rdev: Some(Rdev { major: 226, minor: 0 }),
            kind: Kind::DrmCard,
            name: "card0".into(),
            module: "nvidia_drm".into(),
            via: Via::Fd,
            count: 1,
            path: String::new(),
        };
        Holder {
            pid: 7,
            start_ticks: 1,
            since: None,
            uid: 0,
            user: None,
            comm: "systemd-logind".into(),
            command: Vec::new(),
            state: 'S',
            devices: vec![device],
            owner: Owner::SystemUnit { unit: "systemd-logind.service".into(), slice: String::new() },
            screen: false,
            gpu_memory: None,
        }
    }

    #[test]
    fn what_no_session_has_is_a_refusal_unless_logind_may_be_restarted() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let ledger = Ledger::new(root.path("/var/lib/nvidia-reload"), "boot");
        let context = Context { step: Step::Preflight, root, ledger };
        let planned = |logind_may: Logind| {
            let mut config = Config::default();
            config.units.logind = logind_may;
            let mut findings = Findings::default();
            let actions = released(&context, &config, &logind(), &mut findings).expect("reads");
            let objects: Vec<String> = actions.into_iter().map(|action| action.object).collect();
            (findings.verdict().0, objects)
        };
        assert_eq!(planned(Logind::Release), (Verdict::Refused, vec![]));
        assert_eq!(planned(Logind::Restart), (Verdict::Ready, vec!["systemd-logind.service".into()]));
        let sessions = context.root.path("/run/systemd/sessions");
        fs::create_dir_all(&sessions).expect("creates");
        fs::write(sessions.join("3"), "UID=1000\nDEVICES=226:0\n").expect("writes");
        let session = "the display devices of session 3 of user 1000".to_owned();
        assert_eq!(planned(Logind::Release), (Verdict::Ready, vec![session.clone()]));
        assert_eq!(planned(Logind::Restart).1, [session, "systemd-logind.service".to_owned()]);
    }
}
