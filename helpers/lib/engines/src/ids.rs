// SPDX-License-Identifier: MIT
//! Whose a process is. Its name is anybody's to take.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::geteuid;

/// Whose a process is, as `status` tells. The owner of its folder in `/proc` does not: that is root for
/// everybody's process that may not be dumped.
pub(crate) struct Ids {
    /// The effective user, or the real one where that is not root.
    pub(crate) user: u32,
    /// All groups but the first.
    pub(crate) groups: Vec<u32>,
    /// Whether it is root's through and through.
    is_roots: bool,
}

impl Ids {
    pub(crate) fn of(process: &Path) -> Option<Self> {
        let text = fs::read(process.join("status")).ok()?;
        let text = String::from_utf8_lossy(&text);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let numbers = |line: &str| -> Vec<u32> {
            line.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect()
        };
        let users = numbers(field("Uid:")?);
        let (real, effective) = (*users.first()?, *users.get(1)?);
        let user = if effective == 0 { real } else { effective };
        let groups = field("Groups:").map(numbers).unwrap_or_default();
        Some(Self { user, groups, is_roots: users.len() == 4 && users.iter().all(|user| *user == 0) })
    }
}

/// Whether a process is root's, and runs the program that it is called after. k3s and rke2 are many
/// programs in one. The kernel does not show users without rights which program it is: they see that
/// they cannot ask it.
pub(crate) fn is_roots(process: &Path, comm: &[u8]) -> bool {
    let Some(Ids { is_roots: true, .. }) = Ids::of(process) else { return false };
    let program = match fs::read_link(process.join("exe")) {
        Ok(program) => program,
        Err(error) => return error.kind() == ErrorKind::PermissionDenied && !geteuid().is_root(),
    };
    let name = program.file_name().unwrap_or_default().as_bytes();
    name.starts_with(comm) || [&b"k3s"[..], b"rke2"].iter().any(|all| name.starts_with(all))
}
