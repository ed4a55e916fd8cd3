// SPDX-License-Identifier: MIT
//! What logind keeps for login sessions: cards that a session's controller asked it to open (`TakeDevice`). It
//! holds each until the controller gives it back, or another takes the session over; and so does PID 1, which
//! hands it to a logind that was restarted.

use std::fs;
use std::io::ErrorKind;

use step::Root;

use crate::device::{Kind, Rdev};
use crate::model::{Holder, Owner};
use crate::{Error, Result};

/// Where logind keeps what it knows of each session, in files of root's.
const SESSIONS: &str = "/run/systemd/sessions";

const LOGIND: &str = "systemd-logind.service";

/// A session for which logind keeps devices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// logind's id of it.
    pub id: String,
    /// Its user.
    pub uid: u32,
    /// The numbers of the devices.
    pub devices: Vec<Rdev>,
}

/// Whether logind is who has to be asked.
pub fn is_logind(owner: &Owner) -> bool {
    matches!(owner, Owner::SystemUnit { unit, .. } if unit == LOGIND)
}

/// The sessions for which logind keeps some of what it holds; none where it holds something that no session
/// has.
///
/// # Errors
/// What logind says of its sessions cannot be read.
pub fn sessions_of(root: &Root, logind: &Holder) -> Result<Option<Vec<Session>>> {
    let held: Vec<Rdev> = logind.devices.iter().filter_map(|device| device.rdev).collect();
    let mut sessions = all(root)?;
    for session in &mut sessions {
        session.devices.retain(|device| held.contains(device));
    }
    sessions.retain(|session| !session.devices.is_empty());
    let is_known = |device: &Rdev| sessions.iter().any(|session| session.devices.contains(device));
    Ok(held.iter().all(is_known).then_some(sessions))
}

fn all(root: &Root) -> Result<Vec<Session>> {
    let directory = root.path(SESSIONS);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: directory, source }),
    };
    let mut sessions = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| Error::Read { path: directory.clone(), source })?;
        // Beside the files are pipes, called `ID.ref`.
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let id = entry.file_name().to_string_lossy().into_owned();
        match fs::read_to_string(entry.path()) {
            Ok(text) => sessions.extend(session(id, &text)),
            // It ended.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Read { path: entry.path(), source }),
        }
    }
    sessions.sort();
    Ok(sessions)
}

/// The session with this file.
fn session(id: String, text: &str) -> Option<Session> {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let number = |word: &str| {
        let (major, minor) = word.split_once(':')?;
        Some(Rdev { major: major.parse().ok()?, minor: minor.parse().ok()? })
    };
    let devices = value("DEVICES")?.split_ascii_whitespace().filter_map(number).collect();
    Some(Session { id, uid: value("UID")?.parse().ok()?, devices })
}

/// What PID 1 holds and logind too, it keeps for logind. And logind drives a screen where a display server has
/// the card from it.
pub(crate) fn attribute(holders: &mut [Holder]) {
    let cards = |holder: &Holder| -> Vec<Rdev> {
        let cards = holder.devices.iter().filter(|device| device.kind == Kind::DrmCard);
        cards.filter_map(|device| device.rdev).collect()
    };
    let Some(logind) = holders.iter().find(|holder| is_logind(&holder.owner)).cloned() else { return };
    let kept = cards(&logind);
    let screen = holders.iter().any(|holder| {
        holder.pid != 1 && holder.pid != logind.pid && cards(holder).iter().any(|card| kept.contains(card))
    });
    for holder in holders {
        let keeps = |rdev: Option<Rdev>| logind.devices.iter().any(|device| device.rdev == rdev);
        if holder.pid == logind.pid {
            holder.screen = screen;
        } else if holder.pid == 1 && holder.devices.iter().all(|device| keeps(device.rdev)) {
            holder.owner = logind.owner.clone();
            holder.screen = screen;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, Via};

    const CARD0: Rdev = Rdev { major: 226, minor: 0 };
    const CARD1: Rdev = Rdev { major: 226, minor: 1 };

    fn holder(pid: i32, unit: &str, cards: &[Rdev]) -> Holder {
        let device = |rdev: &Rdev| Device {
            rdev: Some(*rdev),
            kind: Kind::DrmCard,
            name: format!("card{}", rdev.minor),
            module: "nvidia_drm".into(),
            via: Via::Fd,
            count: 1,
            path: String::new(),
        };
        Holder {
            pid,
            start_ticks: 1,
            since: None,
            uid: 0,
            user: None,
            comm: String::new(),
            command: Vec::new(),
            state: 'S',
            devices: cards.iter().map(device).collect(),
            owner: Owner::SystemUnit { unit: unit.into(), slice: "system.slice".into() },
            screen: true,
            gpu_memory: None,
        }
    }

    #[test]
    fn a_session_has_what_logind_says() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let logind = holder(7, LOGIND, &[CARD0]);
        assert_eq!(sessions_of(&root, &logind).expect("reads"), None);
        let write = |id: &str, text: &str| {
            fs::create_dir_all(root.path(SESSIONS)).expect("creates");
            fs::write(root.path(SESSIONS).join(id), text).expect("writes");
        };
        write("3", "# This is private data. Do not parse.\nUID=1000\nUSER=alice\nDEVICES=13:64 226:0\n");
        write("4", "UID=1001\nDEVICES=226:1\n");
        write("5", "UID=1001\nACTIVE=1\n");
        let session =
            |id: &str, uid, devices: &[Rdev]| Session { id: id.into(), uid, devices: devices.into() };
        assert_eq!(sessions_of(&root, &logind).expect("reads"), Some(vec![session("3", 1000, &[CARD0])]));
        let both = holder(7, LOGIND, &[CARD0, CARD1]);
        let sessions = sessions_of(&root, &both).expect("reads").expect("all are of sessions");
        assert_eq!(sessions, [session("3", 1000, &[CARD0]), session("4", 1001, &[CARD1])]);
        write("4", "UID=1001\nDEVICES=\n");
        assert_eq!(sessions_of(&root, &both).expect("reads"), None, "card1 is of no session");
    }

    #[test]
    fn pid_1_keeps_for_logind_what_logind_has_and_a_display_server_makes_it_a_screen() {
        let of = |holders: &[Holder]| {
            let mut holders = holders.to_vec();
            attribute(&mut holders);
            holders.iter().map(|holder| (is_logind(&holder.owner), holder.screen)).collect::<Vec<_>>()
        };
        let (first, logind) = (holder(1, "init.scope", &[CARD0]), holder(7, LOGIND, &[CARD0]));
        assert_eq!(of(&[first.clone(), logind.clone()]), [(true, false), (true, false)]);
        let server = holder(9, "user@7.service", &[CARD0]);
        assert_eq!(of(&[first.clone(), logind.clone(), server])[..2], [(true, true), (true, true)]);
        let other = holder(9, "x.service", &[CARD1]);
        assert_eq!(of(&[first, logind.clone(), other])[..2], [(true, false), (true, false)]);
        let more = holder(1, "init.scope", &[CARD0, CARD1]);
        assert_eq!(of(&[more, logind]), [(false, true), (true, false)], "it keeps another one, too");
    }
}
