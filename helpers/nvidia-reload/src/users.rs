// SPDX-License-Identifier: MIT
//! The names of users, for the eyes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use step::Root;

/// /etc/passwd is read up to here.
const MOST: u64 = 4 << 20;

/// What stands before a user's number in the words for an object.
const USER: &str = " user ";

/// The names that `/etc/passwd` has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<u32, String>);

impl Users {
    /// Reads them. Without the file there are none: the numbers are shown.
    pub fn read(root: &Root) -> Self {
        let mut text = Vec::new();
        let read =
            File::open(root.path("/etc/passwd")).and_then(|file| file.take(MOST).read_to_end(&mut text));
        match read {
            Ok(_) => Self::parse(&String::from_utf8_lossy(&text)),
            Err(_) => Self::default(),
        }
    }

    fn parse(text: &str) -> Self {
        let mut users = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next().unwrap_or_default(), fields.nth(1).map(str::parse));
            if let Some(Ok(uid)) = uid {
                // The first of several names is the one that the system shows.
                users.entry(uid).or_insert_with(|| name.to_owned());
            }
        }
        Self(users)
    }

    /// The user's name, or its number.
    pub fn name(&self, uid: u32) -> String {
        self.0.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    /// `text` with names where it says `of user NUMBER`, or `by user NUMBER`.
    pub fn named(&self, text: &str) -> String {
        let mut parts = text.split(USER);
        let mut named = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let is_owner = named.ends_with("of") || named.ends_with("by");
            named.push_str(USER);
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            match part[..digits].parse() {
                Ok(uid) if is_owner => named.push_str(&self.name(uid)),
                _ => named.push_str(&part[..digits]),
            }
            named.push_str(&part[digits..]);
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_users_become_names() {
        let users =
            Users::parse("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbad\n");
        assert_eq!(users.named("a.service of user 1000"), "a.service of user alice");
        assert_eq!(users.named("b of user 7, c of user 0."), "b of user 7, c of user root.");
        assert_eq!(
            users.named("of user alice and of user 99999999999"),
            "of user alice and of user 99999999999"
        );
        assert_eq!(users.named("sent by user 1000 to user 1000"), "sent by user alice to user 1000");
        assert_eq!((users.name(0), users.name(5)), ("root".to_owned(), "5".to_owned()));
    }
}
