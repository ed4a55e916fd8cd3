// SPDX-License-Identifier: MIT
//! What the configuration protects: `NAME`, or `USER:NAME` for what is a user's.

use std::fs;

use anyhow::{Context as _, Result};

use crate::Root;

/// An entry of `protect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Whose it is; none for what is root's or the system's.
    pub user: Option<u32>,
    /// The unit, or the short name of the process.
    pub name: String,
}

impl Guard {
    /// Reads entries of `protect`. A user is a number, or a name in `/etc/passwd`: a step waits for no
    /// directory service.
    ///
    /// # Errors
    /// A user that is neither.
    pub fn read(root: &Root, entries: &[String]) -> Result<Vec<Self>> {
        entries.iter().map(|entry| Self::of(root, entry)).collect()
    }

    fn of(root: &Root, entry: &str) -> Result<Self> {
        let Some((user, name)) = entry.split_once(':') else {
            return Ok(Self { user: None, name: entry.to_owned() });
        };
        let uid = match user.parse() {
            Ok(uid) => uid,
            Err(_) => {
                let passwd = fs::read(root.path("/etc/passwd")).context("read /etc/passwd")?;
                uid_of(&String::from_utf8_lossy(&passwd), user).with_context(|| {
                    format!(
                        "{entry:?}: no user {user:?} in /etc/passwd; `id -u {user}` shows the number to write"
                    )
                })?
            }
        };
        Ok(Self { user: Some(uid), name: name.to_owned() })
    }
}

pub(crate) fn uid_of(passwd: &str, user: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == user).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_with_and_without_a_user() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/etc")).expect("creates");
        fs::write(root.path("/etc/passwd"), "root:x:0:0::/:\nbroken\nada:x:7:7::/:\n").expect("writes");
        let read = |entry: &str| Guard::of(&root, entry).map(|guard| (guard.user, guard.name));
        assert_eq!(read("train").expect("reads"), (None, "train".into()));
        assert_eq!(read("ada:train").expect("reads"), (Some(7), "train".into()));
        assert_eq!(read("8:x@1:2.service").expect("reads"), (Some(8), "x@1:2.service".into()));
        let error = format!("{:#}", read("bob:train").expect_err("no such user"));
        assert!(error.contains("bob") && error.contains("/etc/passwd"), "{error}");
    }
}
