// SPDX-License-Identifier: MIT
//! What has to hold before anything is asked or done.

use bus::Manager;
use step::{Exit, OFF, Root};

use crate::fault::{Fault, Result};
use crate::status::{Units, our_units};

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

/// systemd, and the states of our units.
///
/// # Errors
/// It does not answer, or has no such units.
pub fn systemd() -> Result<(Manager, Units)> {
    let refused = |error: bus::Error| Fault { exit: Exit::Refused as u8, ..error.into() };
    let manager = Manager::system().map_err(refused)?;
    let units = our_units(&manager).map_err(refused)?;
    Ok((manager, units))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
