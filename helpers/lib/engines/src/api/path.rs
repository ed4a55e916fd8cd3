// SPDX-License-Identifier: MIT
//! Ids and names in the paths of an engine's API.

use crate::Error;

/// `text` as a part of a URL.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// An id or a name as one part of a path: it leads to nothing else.
pub(super) fn segment(id: &str) -> Result<String, Error> {
    match id.bytes().all(|byte| byte == b'.') {
        true => Err(Error::Odd(format!("{id:?} is no container"))),
        false => Ok(percent_encoded(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_to_nothing_but_its_container() {
        assert_eq!(segment("0a1b").as_deref(), Ok("0a1b"));
        assert_eq!(segment("../build?remote=x&y=").as_deref(), Ok("..%2Fbuild%3Fremote%3Dx%26y%3D"));
        assert_eq!(segment("../containers/prune#").as_deref(), Ok("..%2Fcontainers%2Fprune%23"));
        for nothing in ["", ".", ".."] {
            segment(nothing).expect_err("is no container");
        }
    }
}
