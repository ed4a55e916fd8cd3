// SPDX-License-Identifier: MIT
//! What a scan could not look at, in words.

use crate::process::field_of;
use crate::search::Blocked;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs;
use step::Root;

/// The bit of CAP_SYS_PTRACE in `CapEff`: the right to look into other users' processes.
const CAP_SYS_PTRACE: u32 = 19;
/// The inode of the initial pid namespace, fixed in the kernel (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What keeps this process from seeing all others at all.
pub(crate) fn limits(root: &Root) -> Vec<String> {
    let mut limits = Vec::new();
    let status = fs::read(root.path("/proc/self/status")).unwrap_or_default();
    if !may_look_into_others(&status) {
        // A user's mount may be at a path of any bytes.
        let mounts = fs::read(root.path("/proc/self/mountinfo")).unwrap_or_default();
        if let Some(option) = proc_option(&String::from_utf8_lossy(&mounts)) {
            limits.push(format!(
                "processes of other users: /proc is mounted with {option} and CAP_SYS_PTRACE is missing"
            ));
        }
    }
    match fs::read_link(root.path("/proc/self/ns/pid")) {
        Ok(namespace) if namespace.as_os_str() != INITIAL_PID_NAMESPACE => {
            limits.push("processes outside of this pid namespace: only the initial one shows all".to_owned())
        }
        // A tree of fixtures, or a kernel without pid namespaces.
        _ => {}
    }
    limits
}

/// Sentences for the processes whose files could not be looked at.
pub(crate) fn blocked(processes: &[Blocked]) -> Vec<String> {
    let mut by_reason: BTreeMap<(Option<u32>, String), Vec<i32>> = BTreeMap::new();
    for Blocked { pid, uid, error } in processes {
        let reason = match *error {
            Errno::ACCESS | Errno::PERM => "permission denied, CAP_SYS_PTRACE is missing".to_owned(),
            error => error.to_string(),
        };
        by_reason.entry((*uid, reason)).or_default().push(*pid);
    }
    by_reason
        .into_iter()
        .map(|((uid, reason), pids)| match (pids.as_slice(), uid) {
            ([pid], _) => format!("pid {pid}: {reason}"),
            (many, Some(uid)) => format!("{} processes of user {uid}: {reason}", many.len()),
            (many, None) => format!("{} processes: {reason}", many.len()),
        })
        .collect()
}

/// Sentences for the processes that stopped their reader.
pub(crate) fn stuck(pids: &[i32]) -> Vec<String> {
    pids.iter()
        .map(|pid| format!("pid {pid}: it is stuck in the kernel with its memory map locked"))
        .collect()
}

fn may_look_into_others(status: &[u8]) -> bool {
    field_of(status, "CapEff")
        .and_then(|set| u64::from_str_radix(&set, 16).ok())
        .is_some_and(|set| set & (1 << CAP_SYS_PTRACE) != 0)
}

/// The option of the mount on `/proc` that hides processes: the last mount there counts.
pub(crate) fn proc_option(mountinfo: &str) -> Option<String> {
    let line = mountinfo
        .lines()
        .rev()
        .find(|line| line.split(' ').nth(4) == Some("/proc") && line.contains(" - proc "))?;
    let options = line.rsplit(' ').next()?;
    options
        .split(',')
        .find(|option| match option.strip_prefix("hidepid=") {
            Some(level) => !matches!(level, "0" | "off"),
            None => *option == "subset=pid",
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROC: &str = "22 28 0:21 / /proc rw,nosuid - proc proc rw,gid=4,hidepid=invisible\n";

    #[test]
    fn a_proc_that_hides() {
        assert_eq!(proc_option(PROC).as_deref(), Some("hidepid=invisible"));
        assert_eq!(proc_option(&PROC.replace("invisible", "2")).as_deref(), Some("hidepid=2"));
        assert_eq!(proc_option(&PROC.replace(",hidepid=invisible", "")), None);
        assert_eq!(proc_option(&PROC.replace("invisible", "off")), None);
        assert_eq!(proc_option(&PROC.replace("/proc", "/srv/proc")), None);
        assert_eq!(proc_option("odd\n"), None);
    }

    #[test]
    fn rights() {
        assert!(may_look_into_others(b"CapEff:\t000001ffffffffff\n"));
        assert!(!may_look_into_others(b"CapEff:\t0000000000000000\n"));
        assert!(!may_look_into_others(b""));
    }

    #[test]
    fn sentences() {
        let denied = |pid| Blocked { pid, uid: Some(7), error: Errno::ACCESS };
        assert_eq!(
            blocked(&[denied(3), denied(4), Blocked { pid: 9, uid: None, error: Errno::MFILE }]),
            [
                format!("pid 9: {}", Errno::MFILE),
                "2 processes of user 7: permission denied, CAP_SYS_PTRACE is missing".to_owned(),
            ]
        );
    }
}
