// SPDX-License-Identifier: MIT
//! Who else has a say in when this machine may be out of service.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Other machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fleet {
    /// The base URL of a server that speaks the FleetLock protocol; empty for none.
    pub lock: String,
    /// The group that this machine is in there.
    pub group: String,
    /// What this machine is called there; empty for an id of its own that is made from the machine id.
    pub id: String,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { lock: String::new(), group: "default".into(), id: String::new() }
    }
}

impl Fleet {
    pub(super) fn validate(&self) -> Result<()> {
        let Self { lock, group, id } = self;
        if !lock.is_empty() && !is_base_url(lock) {
            bail!(
                "fleet.lock = {lock:?}: give the server's base URL, such as \"https://lock.example/base\", \
                 without a password, a query or a fragment"
            );
        }
        let in_group = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        if group.is_empty() || group.len() > 128 || !group.bytes().all(in_group) {
            bail!("fleet.group = {group:?}: use letters, digits, '.' and '-' only, 128 at most");
        }
        if id.len() > 128 || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("fleet.id = {id:?}: use visible ASCII characters without spaces, 128 at most");
        }
        Ok(())
    }
}

/// Whether it is `http://HOST…` or `https://HOST…`, to which a path can be added.
fn is_base_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        !host.is_empty()
            && url.len() <= 1024
            && url.bytes().all(|byte| byte.is_ascii_graphic())
            && !rest.contains(['@', '?', '#', '\\'])
    })
}
