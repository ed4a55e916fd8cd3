// SPDX-License-Identifier: MIT
//! What a file has beside owner and mode: capabilities that a program gets, SELinux's label, and when it was changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;

/// What is saved. Others are the file system's own, or a user's.
const NAMES: [&str; 2] = [CAPABILITY, "security.selinux"];

/// The capabilities of a program.
const CAPABILITY: &str = "security.capability";

/// Longer is no label: the kernel's own limit is one page.
const MOST: usize = 4096;

/// By name, the value in hexadecimal digits.
pub(crate) type Attributes = BTreeMap<String, String>;

/// Those of the file `path`.
///
/// # Errors
/// They cannot be read.
pub(crate) fn read(path: &Path) -> Result<Attributes> {
    let mut found = Attributes::new();
    for name in NAMES {
        let mut value = [0; MOST];
        match lgetxattr(path, name, &mut value[..]) {
            Ok(length) => {
                let digits = value.iter().take(length).map(|byte| format!("{byte:02x}")).collect();
                found.insert(name.to_owned(), digits);
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error).with_context(|| format!("read {name} of {}", path.display())),
        }
    }
    Ok(found)
}

/// Whether a program with these gets capabilities.
pub(crate) fn gives_capabilities(attributes: &Attributes) -> bool {
    attributes.contains_key(CAPABILITY)
}

/// Gives them to the file `path`, whose owner and mode are set. What cannot be set is said, and no reason to leave
/// a driver half in place: without its label a file has that of its folder.
pub(crate) fn write(path: &Path, attributes: &Attributes) {
    for (name, digits) in attributes {
        let value: Option<Vec<u8>> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
            .collect();
        let set = match value {
            Some(value) if NAMES.contains(&name.as_str()) => {
                lsetxattr(path, name.as_str(), &value, XattrFlags::empty())
            }
            _ => Err(Errno::INVAL),
        };
        if let Err(error) = set {
            step::say(&format!("{name} of {} cannot be set: {error}", path.display()));
        }
    }
}

/// When a file was changed last, in nanoseconds since 1970.
pub(crate) fn modified_nsec(data: &fs::Metadata) -> i64 {
    data.mtime().saturating_mul(1_000_000_000).saturating_add(data.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_may_is_saved_and_restored() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        std::fs::write(&from, "").expect("writes");
        std::fs::write(&to, "").expect("writes");
        assert_eq!(read(&from).expect("reads"), Attributes::new());
        // CAP_NET_BIND_SERVICE.
        let digits = "0100000200040000000000000000000000000000";
        let wanted = Attributes::from([(CAPABILITY.to_owned(), digits.to_owned())]);
        write(&from, &wanted);
        let found = read(&from).expect("reads");
        if rustix::process::geteuid().is_root() {
            assert_eq!(found, wanted);
            assert!(gives_capabilities(&found));
        } else {
            assert_eq!(found, Attributes::new(), "it needs root, and that is said");
        }
        write(&to, &found);
        assert_eq!(read(&to).expect("reads"), found);
        // Nothing but what is saved is set.
        write(&to, &Attributes::from([("user.other".to_owned(), "00".to_owned())]));
        assert_eq!(read(&to).expect("reads"), found);
    }
}
