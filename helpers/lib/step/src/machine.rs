// SPDX-License-Identifier: MIT
//! A name of this machine for others.

use std::fs;

use crate::Root;
use anyhow::{Context, Result, anyhow};
use libsystemd::id128::Id128;

/// The id of this program, by which the machine id becomes one that does not reveal it (machine-id(5)).
const APP: &str = "4aa1cda2355c4cd2be51e37ad2b8b1a2";

/// The id of this machine for this program, 32 hexadecimal digits: made from the machine id, which it does not tell.
///
/// # Errors
/// The machine has no id.
pub fn machine_id(root: &Root) -> Result<String> {
    let path = root.path("/etc/machine-id");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let odd = |error: libsystemd::errors::SdError| {
        anyhow!("{} has no machine id ({error}): `systemd-machine-id-setup` makes one", path.display())
    };
    let app = Id128::parse_str(APP).map_err(odd)?;
    let machine = Id128::parse_str(text.trim()).map_err(odd)?;
    Ok(machine.app_specific(&app).map_err(odd)?.lower_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_has_an_id_that_is_not_its_machine_id() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir(root.path("/etc")).expect("creates");
        let of = |text: &str| {
            fs::write(root.path("/etc/machine-id"), text).expect("writes");
            machine_id(&root)
        };
        // HMAC-SHA256 of the program id, keyed by the machine id, as a UUID of version 4: calculated by another program.
        assert_eq!(
            of("b08dfa6083e7567a1921a715000001fb\n").expect("is made"),
            "1a74421b1d0a47d0b4eacb091ad828dc"
        );
        for bad in ["", "uninitialized\n", "b08dfa60"] {
            let error = format!("{:#}", of(bad).expect_err("is no id"));
            assert!(
                error.contains("/etc/machine-id") && error.contains("systemd-machine-id-setup"),
                "{error}"
            );
        }
    }
}
