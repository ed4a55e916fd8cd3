// SPDX-License-Identifier: MIT
//! What has to hold before anything is asked or done.

use std::thread::sleep;
use std::time::{Duration, Instant};

use bus::{ActiveState, Manager};
use step::{Exit, OFF, Root};

use crate::fault::{Fault, Result};
use crate::status::{State, Units, is_started, our_units, state, state_of};
use crate::target::Target;
use crate::terminal::Terminal;

/// How long what a refused start leaves on a machine that is held is waited for: a step and a rollback that look, and
/// find nothing to do.
const REFUSED: Duration = Duration::from_secs(60);

/// How often they are looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// Only root may do `what`.
///
/// # Errors
/// This is not root.
pub fn root(what: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Fault::refused(
        format!("`nvidia-reload {what}` needs root; nothing was touched"),
        format!("try `sudo nvidia-reload {what}`; `nvidia-reload status` works for everyone"),
    ))
}

/// The switch on the kernel command line does not turn everything off.
///
/// # Errors
/// It does, or it is not known.
pub fn switched_on(root: &Root) -> Result<()> {
    if is_switched_off(root)? {
        return Err(Fault::refused(
            format!("nvidia-reload is turned off by {OFF} on the kernel command line; nothing was touched"),
            format!("boot without {OFF}"),
        ));
    }
    Ok(())
}

/// Whether somebody turned everything off.
///
/// # Errors
/// It is not known.
pub fn is_switched_off(root: &Root) -> Result<bool> {
    step::is_switched_off(root).map_err(|error| {
        Fault::refused("cannot read the kernel command line; nothing was touched", "").because(&*error)
    })
}

/// systemd, and the states of our units. On a machine that is held, after what a refused start has left; where that
/// is waited for, `terminal` says so.
///
/// # Errors
/// It does not answer, or has no such units.
pub fn systemd(terminal: &mut Terminal) -> Result<(Manager, Units)> {
    let refused = |error: bus::Error| Fault { exit: Exit::Refused as u8, ..error.into() };
    let manager = Manager::system().map_err(refused)?;
    let until = Instant::now() + REFUSED;
    let mut note = Some("Waiting until an earlier start that was refused has ended.\n");
    loop {
        let units = our_units(&manager).map_err(refused)?;
        if !is_held_and_at_work(&units) || Instant::now() > until {
            return Ok((manager, units));
        }
        // Of a target that is about to be reached it is the work.
        for target in Target::ALL {
            if is_started(&manager, target).map_err(refused)? {
                return Ok((manager, units));
            }
        }
        if let Some(note) = note.take() {
            terminal.note(note);
        }
        sleep(PAUSE);
    }
}

/// Whether a step changes although a target holds the machine.
fn is_held_and_at_work(units: &Units) -> bool {
    let is_held = [Target::Drained, Target::Offline]
        .into_iter()
        .any(|target| state_of(units, target.unit()) == ActiveState::Active);
    is_held && matches!(state(units), State::Busy | State::Restoring)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_refused_start_leaves_is_no_state_of_a_machine_that_is_held() {
        use ActiveState::{Activating, Active, Deactivating, Failed};
        let of = |units: &[(&str, ActiveState)]| {
            let preflight = ("nvidia-reload-preflight.service", Active);
            let units = units.iter().chain([&preflight]);
            is_held_and_at_work(&units.map(|(name, state)| ((*name).to_owned(), state.clone())).collect())
        };
        let drained = ("nvidia-drained.target", Active);
        let (unbind, rollback) = ("nvidia-reload-unbind-vt.service", "nvidia-reload-rollback.service");
        assert!(of(&[drained.clone(), (unbind, Activating)]));
        assert!(of(&[drained.clone(), (unbind, Failed), (rollback, Activating)]));
        assert!(of(&[("nvidia-offline.target", Active), (unbind, Deactivating)]));
        assert!(!of(&[drained, (unbind, Failed)]));
        assert!(!of(&[(unbind, Activating)]), "a run that holds nothing");
    }

    #[test]
    fn what_is_not_known_is_refused_as_what_is_off() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert_eq!(switched_on(&root).expect_err("cannot tell").exit, 3);
        fs::create_dir(directory.path().join("proc")).expect("creates");
        let path = root.path("/proc/cmdline");
        fs::write(&path, "quiet\n").expect("writes");
        switched_on(&root).expect("is on");
        fs::write(&path, "quiet nvidia_reload=0\n").expect("writes");
        let fault = switched_on(&root).expect_err("is off");
        assert_eq!(fault.exit, 3);
        assert!(fault.error.contains(OFF));
    }
}
