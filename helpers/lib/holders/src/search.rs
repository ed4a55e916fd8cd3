// SPDX-License-Identifier: MIT
//! The search itself: a quick look at every process, a thorough one at those that hold something.

use crate::device::{Device, Via};
use crate::devices::{Node, Table};
use crate::held::Held;
use crate::hidden::InFlight;
use crate::model::{Holder, Owner};
use crate::process::Process;
use crate::text::escape;
use crate::walk::{Scratch, open_dir};
use crate::{cgroup, kcmp, process, slurm, walk};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a look at one process came to.
enum Inspection {
    /// It holds something.
    Holder(Box<Found>),
    /// Its files could not be looked at.
    Blocked(Blocked),
}

/// A process whose files could not be looked at.
pub(crate) struct Blocked {
    pub(crate) pid: i32,
    pub(crate) uid: Option<u32>,
    pub(crate) error: Errno,
}

/// A holder with what the accounting of references needs.
pub(crate) struct Found {
    pub(crate) holder: Holder,
    /// The devices that it has open, each once.
    pub(crate) nodes: Vec<Node>,
    pub(crate) files: Vec<OpenFile>,
    /// Mapped devices, with the number of mappings. Their files are among `files` or not: the kernel
    /// does not tell.
    pub(crate) mapped: Vec<(Node, u64)>,
    /// Devices that are in flight to it, with the number of descriptors.
    pub(crate) in_flight: Vec<(Node, u64)>,
}

/// One descriptor on a device. A process may have very many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFile {
    /// The task and descriptor by which kcmp knows the open file.
    pub(crate) at: (i32, i32),
    /// Which of [`Found::nodes`].
    pub(crate) node: u32,
}

/// Everything a search looks for and where.
pub(crate) struct Search {
    pub(crate) proc: OwnedFd,
    /// Where control groups are, beside `proc`.
    pub(crate) groups: PathBuf,
    pub(crate) table: Table,
    /// Whether the kernel tells which tasks share a file table. Not in a tree of fixtures.
    pub(crate) kcmp: bool,
    /// Whether to look for processes that hold nothing but a mapping. To read the map of every
    /// process is a third of the work, so it is done when the open files do not explain all.
    pub(crate) maps: bool,
}

/// What a search came to.
pub(crate) struct Result {
    pub(crate) found: Vec<Found>,
    /// Processes whose files could not be looked at, and why.
    pub(crate) blocked: Vec<Blocked>,
    /// Processes that are stuck in the kernel with their memory map locked.
    pub(crate) stuck: Vec<i32>,
}

impl Search {
    /// Searches all processes of `proc`. `live` tells that pids are those of this machine.
    pub(crate) fn run(proc: &Path, table: Table, live: bool, maps: bool) -> crate::Result<Result> {
        let pids = walk::processes(proc)?;
        let search = Arc::new(Self::new(proc, table, live, maps)?);

        let worker = Arc::clone(&search);
        let walked = walk::walk(pids, move |scratch, pid| worker.visit(scratch, pid));
        let mut result = Result { found: Vec::new(), blocked: Vec::new(), stuck: walked.stuck };
        for seen in walked.found {
            match seen {
                Inspection::Holder(found) => result.found.push(*found),
                Inspection::Blocked(blocked) => result.blocked.push(blocked),
            }
        }
        search.complete(&mut result);
        Ok(result)
    }

    /// A search of `proc` that has not begun.
    pub(crate) fn new(proc: &Path, table: Table, live: bool, maps: bool) -> crate::Result<Self> {
        let failed = |error: Errno| crate::Error::Read { path: proc.to_owned(), source: error.into() };
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        let kcmp = live && kcmp::same_file_table(me, me).is_some();
        let groups = proc.with_file_name("sys").join("fs/cgroup");
        let proc = open_dir(rustix::fs::CWD, proc).map_err(failed)?;
        Ok(Self { proc, groups, table, kcmp, maps })
    }

    /// Adds to the holders what is read through their memory maps: from a process that is stuck
    /// in the kernel that cannot be had, and it is a holder all the same.
    fn complete(self: Arc<Self>, result: &mut Result) {
        let who = result.found.iter().map(|found| found.holder.pid).collect();
        let ticks: HashMap<i32, u64> =
            result.found.iter().map(|found| (found.holder.pid, found.holder.start_ticks)).collect();
        let worker = Arc::clone(&self);
        let walked = walk::walk(who, move |scratch, pid| {
            worker.memory(scratch, pid, *ticks.get(&pid)?).map(|memory| (pid, memory))
        });
        let mut memories: HashMap<i32, Memory> = walked.found.into_iter().collect();
        for found in &mut result.found {
            let Some(memory) = memories.remove(&found.holder.pid) else { continue };
            found.holder.command = memory.command;
            found.holder.devices.extend(memory.held.devices.into_values());
            found.mapped = memory.mapped;
        }
        result.stuck.extend(walked.stuck);
        // A map was all there was, and it is gone; or a device was named and not opened.
        result.found.retain(|found| !found.holder.devices.is_empty());
    }

    fn visit(&self, scratch: &mut Scratch, pid: i32) -> Option<Inspection> {
        match self.holds_any(scratch, pid) {
            Ok(false) => None,
            Ok(true) => self.examine(scratch, pid).map(Box::new).map(Inspection::Holder),
            // It ended.
            Err(Errno::NOENT | Errno::SRCH) => None,
            Err(error) => {
                let uid = Process::open(&self.proc, pid).ok().and_then(|process| process.uid());
                Some(Inspection::Blocked(Blocked { pid, uid, error }))
            }
        }
    }

    /// The quick look: ends at the first device.
    fn holds_any(&self, scratch: &mut Scratch, pid: i32) -> rustix::io::Result<bool> {
        let any_in = |scratch: &mut Scratch, path: String| {
            let table = open_dir(&self.proc, path)?;
            let mut any = false;
            let looked = self.each_held(scratch, table.as_fd(), |_, _| {
                any = true;
                false
            });
            if any { Ok(true) } else { looked.map(|()| false) }
        };
        if any_in(scratch, format!("{pid}/fd"))? {
            return Ok(true);
        }
        for task in self.own_tables(scratch, self.proc.as_fd(), &format!("{pid}/"), pid) {
            match any_in(scratch, format!("{pid}/task/{task}/fd")) {
                // A thread ends more often than a process.
                Ok(false) | Err(Errno::NOENT | Errno::SRCH) => {}
                other => return other,
            }
        }
        if !self.maps {
            return Ok(false);
        }
        let dir = open_dir(&self.proc, pid.to_string())?;
        let mut any = false;
        self.each_mapped(scratch, dir.as_fd(), pid, |_, _| {
            any = true;
            false
        })?;
        Ok(any)
    }

    /// The thorough look at a process that holds something. `None` if it has ended since.
    fn examine(&self, scratch: &mut Scratch, pid: i32) -> Option<Found> {
        let process = Process::open(&self.proc, pid).ok()?;
        let first = process.stat()?;
        let mut held = Held::default();
        self.collect(scratch, &process, pid, "fd", Via::Fd, &mut held);
        for task in self.own_tables(scratch, process.dir.as_fd(), "", pid) {
            self.collect(scratch, &process, task, &format!("task/{task}/fd"), Via::ThreadFd, &mut held);
        }
        let holder = self.describe(&process, pid, first, held.devices.into_values().collect())?;
        let Held { nodes, files, .. } = held;
        Some(Found { holder, nodes, files, mapped: Vec::new(), in_flight: Vec::new() })
    }

    /// Adds devices that are in flight to processes in their own sockets.
    pub(crate) fn add_in_flight(&self, found: &mut Vec<Found>, hidden: &[InFlight]) {
        let known: HashMap<(i32, u64), usize> = found
            .iter()
            .enumerate()
            .map(|(at, found)| ((found.holder.pid, found.holder.start_ticks), at))
            .collect();
        for InFlight { pid, start_ticks, fd, devices } in hidden {
            let mut held = Held::default();
            let mut in_flight = Vec::new();
            for (rdev, count) in devices {
                if let Some(node) = self.table.find(*rdev) {
                    held.add(Some(*rdev), &node, Via::InFlight, *count, || {
                        format!("in flight in socket {fd}")
                    });
                    in_flight.push((node, u64::from(*count)));
                }
            }
            if in_flight.is_empty() {
                continue;
            }
            let devices = held.devices.into_values();
            if let Some(at) = known.get(&(*pid, *start_ticks)) {
                found[*at].holder.devices.extend(devices);
                found[*at].in_flight.extend(in_flight);
                continue;
            }
            let Ok(process) = Process::open(&self.proc, *pid) else { continue };
            let Some(stat) = process.stat().filter(|stat| stat.start_ticks == *start_ticks) else { continue };
            if let Some(mut holder) = self.describe(&process, *pid, stat, devices.collect()) {
                holder.command = process.command();
                let (nodes, files, mapped) = (Vec::new(), Vec::new(), Vec::new());
                found.push(Found { holder, nodes, files, mapped, in_flight });
            }
        }
    }

    /// What is read through the memory map of the process `pid` that started at `ticks`.
    fn memory(&self, scratch: &mut Scratch, pid: i32, ticks: u64) -> Option<Memory> {
        let process = Process::open(&self.proc, pid).ok()?;
        if process.stat()?.start_ticks != ticks {
            return None;
        }
        let command = process.command();
        let mut held = Held::default();
        let mut mapped: BTreeMap<crate::device::Rdev, u64> = BTreeMap::new();
        // A map that may not be read adds nothing to what was found.
        let _ = self.each_mapped(scratch, process.dir.as_fd(), pid, |rdev, path| {
            if let Some(node) = self.table.find(rdev) {
                *mapped.entry(rdev).or_default() += 1;
                held.add(Some(rdev), &node, Via::Map, 1, || escape(path));
            }
            true
        });
        let mapped = mapped.into_iter().filter_map(|(rdev, count)| Some((self.table.find(rdev)?, count)));
        let mapped = mapped.collect();
        Some(Memory { command, held, mapped })
    }

    /// A holder, without what comes through its memory map or from elsewhere.
    fn describe(
        &self,
        process: &Process,
        pid: i32,
        stat: process::Stat,
        devices: Vec<Device>,
    ) -> Option<Holder> {
        let group = process.read("cgroup", 64 << 10);
        let owner = group.map_or(Owner::Process, |text| {
            cgroup::owner_where(&text, |group| cgroup::is_roots(&self.groups, group))
        });
        Some(Holder {
            pid,
            start_ticks: stat.start_ticks,
            since: None,
            uid: process.uid()?,
            user: None,
            comm: stat.comm,
            command: Vec::new(),
            state: stat.state,
            devices,
            owner: slurm::owner_with_slurm(&self.proc, process, pid, owner),
            screen: false,
            gpu_memory: None,
        })
    }
}

/// What comes through a memory map.
struct Memory {
    command: Vec<String>,
    held: Held,
    mapped: Vec<(Node, u64)>,
}

#[cfg(test)]
mod large;
#[cfg(test)]
mod tests;
