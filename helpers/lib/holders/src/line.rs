// SPDX-License-Identifier: MIT
//! Who started whom.

use crate::model::Owner;
use crate::process::Stat;
use crate::walk;
use std::collections::{HashMap, HashSet};
use std::fs;
use step::Root;

/// Those of the processes of this machine that are below one of `firsts`, these among them.
pub fn below(root: &Root, firsts: &[i32]) -> HashSet<i32> {
    let mut found: HashSet<i32> = firsts.iter().copied().filter(|pid| *pid > 1).collect();
    if found.is_empty() {
        return found;
    }
    let pids = walk::processes(&root.path("/proc")).unwrap_or_default();
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in pids {
        // One that has ended meanwhile is below nothing.
        let stat = fs::read(root.path(format!("/proc/{pid}/stat"))).ok();
        if let Some(stat) = stat.and_then(|text| Stat::parse(&text)) {
            children.entry(stat.ppid).or_default().push(pid);
        }
    }
    let mut next: Vec<i32> = found.iter().copied().collect();
    while let Some(pid) = next.pop() {
        next.extend(children.remove(&pid).into_iter().flatten().filter(|child| found.insert(*child)));
    }
    found
}

/// Who a run must never end: the one who asks for it.
#[derive(Debug, Clone)]
pub struct Caller {
    line: Vec<i32>,
    owner: Owner,
}

impl Caller {
    /// This process, those above it, and what it runs in.
    pub fn this(root: &Root) -> Self {
        // Linux has no pid that does not fit.
        let line = ancestors(root, std::process::id() as i32);
        let groups = fs::read(root.path("/proc/self/cgroup")).unwrap_or_default();
        Self { line, owner: crate::owner(&groups) }
    }

    /// Whether `pid` is the caller, or above it.
    pub fn is(&self, pid: i32) -> bool {
        self.line.contains(&pid)
    }

    /// Whether the caller runs in what `owner` is.
    pub fn runs_in(&self, owner: &Owner) -> bool {
        self.owner == *owner
    }
}

#[cfg(test)]
impl Caller {
    pub(crate) fn of(line: &[i32], owner: Owner) -> Self {
        Self { line: line.to_vec(), owner }
    }
}

/// The process `pid` and all above it, itself first; PID 1 is left out.
fn ancestors(root: &Root, pid: i32) -> Vec<i32> {
    let mut line = vec![pid];
    let mut at = pid;
    // A tree that is no tree must end too.
    while line.len() < 1000 {
        let stat = fs::read(root.path(format!("/proc/{at}/stat"))).ok();
        match stat.and_then(|text| Stat::parse(&text)) {
            Some(stat) if stat.ppid > 1 => {
                at = stat.ppid;
                line.push(at);
            }
            _ => break,
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_below_a_process() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        // 4 and 5 are each other's parents.
        for (pid, ppid) in [(1, 0), (2, 1), (3, 2), (4, 5), (5, 4), (6, 3), (7, 1)] {
            let stat = format!("{pid} (x) S {ppid} 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 55 0 0\n");
            fs::create_dir_all(root.path(format!("/proc/{pid}"))).expect("created");
            fs::write(root.path(format!("/proc/{pid}/stat")), stat).expect("written");
        }
        assert_eq!(below(&root, &[2]), HashSet::from([2, 3, 6]));
        assert_eq!(below(&root, &[4]), HashSet::from([4, 5]));
        assert_eq!(below(&root, &[1, 0]), HashSet::new(), "everything is below PID 1");
    }

    #[test]
    fn our_own_line() {
        let me = i32::try_from(std::process::id()).expect("a pid");
        let line = ancestors(&Root::system(), me);
        assert_eq!(line[0], me);
        assert_eq!(u32::try_from(line[1]), Ok(std::os::unix::process::parent_id()));
        assert!(!line.contains(&1));
    }
}
