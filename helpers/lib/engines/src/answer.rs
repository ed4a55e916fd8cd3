// SPDX-License-Identifier: MIT
//! What an engine answers, and whether a container of it holds a GPU.

use step::Root;

use crate::Container;

/// What an engine answers.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Its containers that have a GPU, oldest first.
    pub(crate) containers: Vec<Container>,
    /// The ids of all that are up.
    pub(crate) ids: Vec<String>,
    /// Those of which it is not known, and why: a sentence each.
    pub(crate) unclear: Vec<String>,
}

/// Whether one of `holding` is this container: of the same engine's user, with the same id, and in the group
/// that its first process is in or below (that may be in a group of its own in there). A group that is
/// merely called like the container is none of its.
pub(crate) fn holds(
    root: &Root,
    holding: &[holders::Container],
    user: Option<u32>,
    id: &str,
    pid: Option<i32>,
) -> bool {
    let mut claims = holding.iter().filter(|claim| claim.id == id && claim.uid == user).peekable();
    let (Some(pid), Some(_)) = (pid, claims.peek()) else { return false };
    let text = std::fs::read(root.path(format!("/proc/{pid}/cgroup"))).unwrap_or_default();
    let groups = holders::groups_of(&text, id);
    claims.any(|claim| groups.contains(&claim.group))
}
