//! The search itself: a quick look at every process, a thorough one at those that hold something.

use crate::devices::{Node, Table};
use crate::model::{Device, Holder, Kind, Owner, Rdev, Via};
use crate::process::Process;
use crate::text::escape;
use crate::walk::{Scratch, Stat, Walked, each_entry, number, open_dir, stat};
use crate::{Result, cgroup, kcmp, maps, walk};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::readlinkat;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What a look at one process came to.
pub(crate) enum Seen {
    /// It holds something.
    Holder(Box<Found>),
    /// Its files could not be looked at.
    Blocked { pid: i32, uid: Option<u32>, error: Errno },
}

/// A holder with what the accounting of references needs.
pub(crate) struct Found {
    pub(crate) holder: Holder,
    pub(crate) files: Vec<OpenFile>,
    /// Mapped devices. Their files are among `files` or not: the kernel does not tell.
    pub(crate) mapped: Vec<Mapping>,
}

/// One mapping of a device.
pub(crate) struct Mapping {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) module: String,
}

/// One descriptor on a device.
pub(crate) struct OpenFile {
    /// The task and descriptor by which kcmp knows the open file.
    pub(crate) at: (i32, i32),
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) module: String,
}

/// Everything a search looks for and where.
pub(crate) struct Search {
    pub(crate) proc: OwnedFd,
    pub(crate) table: Table,
    /// Whether the kernel tells which tasks share a file table. Not in a tree of fixtures.
    pub(crate) kcmp: bool,
    /// Whether to look for processes that hold nothing but a mapping. To read the map of every
    /// process is a third of the work, so it is done when the open files do not explain all.
    pub(crate) maps: bool,
}

impl Search {
    pub(crate) fn run(proc: &Path, table: Table, live: bool, maps: bool) -> Result<Walked<Seen>> {
        let pids = walk::processes(proc)?;
        let failed = |error: Errno| crate::Error::Read { path: proc.to_owned(), source: error.into() };
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        let kcmp = live && kcmp::same_file_table(me, me).is_some();
        let search = Self { proc: open_dir(rustix::fs::CWD, proc).map_err(failed)?, table, kcmp, maps };
        Ok(walk::walk(pids, move |scratch, pid| search.visit(scratch, pid)))
    }

    pub(crate) fn visit(&self, scratch: &mut Scratch, pid: i32) -> Option<Seen> {
        match self.holds_any(scratch, pid) {
            Ok(false) => None,
            Ok(true) => self.examine(scratch, pid).map(Box::new).map(Seen::Holder),
            // It ended.
            Err(Errno::NOENT | Errno::SRCH) => None,
            Err(error) => {
                let uid = Process::open(&self.proc, pid).ok().and_then(|process| process.uid());
                Some(Seen::Blocked { pid, uid, error })
            }
        }
    }

    /// The quick look: ends at the first device.
    fn holds_any(&self, scratch: &mut Scratch, pid: i32) -> rustix::io::Result<bool> {
        let mut any = false;
        let table = open_dir(&self.proc, format!("{pid}/fd"))?;
        self.each_held(scratch, table.as_fd(), |_, _| {
            any = true;
            false
        })?;
        if any {
            return Ok(true);
        }
        for task in self.own_tables(scratch, self.proc.as_fd(), &format!("{pid}/"), pid) {
            let Ok(table) = open_dir(&self.proc, format!("{pid}/task/{task}/fd")) else { continue };
            self.each_held(scratch, table.as_fd(), |_, _| {
                any = true;
                false
            })?;
            if any {
                return Ok(true);
            }
        }
        if !self.maps {
            return Ok(false);
        }
        let dir = open_dir(&self.proc, pid.to_string())?;
        self.each_mapped(scratch, dir.as_fd(), pid, |_, _| {
            any = true;
            false
        })?;
        Ok(any)
    }

    /// Calls `each` with the descriptors of a table that lead to a device or a dma-buf of the
    /// driver, until it returns false. One system call a descriptor.
    fn each_held(
        &self,
        scratch: &mut Scratch,
        table: BorrowedFd<'_>,
        mut each: impl FnMut(i32, Option<Rdev>) -> bool,
    ) -> rustix::io::Result<()> {
        let Scratch { entries, dma_bufs, .. } = scratch;
        each_entry(table, entries, |name| {
            // Closed since, or taken from us by a change of user: the others still count.
            let Ok(found) = stat(table, name) else { return true };
            let rdev = match found.file_type {
                libc::S_IFCHR if self.table.has(found.rdev) => Some(found.rdev),
                0 | libc::S_IFREG if is_dma_buf(dma_bufs, table, name, found) => None,
                _ => return true,
            };
            number(name).is_none_or(|fd| each(fd, rdev))
        })
    }

    /// The tasks of a process but the first. `process` is the way from `at` to its directory.
    fn other_tasks(&self, scratch: &mut Scratch, at: BorrowedFd<'_>, process: &str, pid: i32) -> Vec<i32> {
        let path = format!("{process}task");
        let mut others = Vec::new();
        // A directory has two links and one for each directory in it: three is one task alone.
        if stat(at, path.as_str()).is_ok_and(|found| found.links == 3) {
            return others;
        }
        let Ok(tasks) = open_dir(at, path.as_str()) else { return others };
        // A list cut short by the end of the process is as good as none.
        let _ = each_entry(tasks, &mut scratch.entries, |name| {
            others.extend(number(name).filter(|task| *task != pid));
            true
        });
        others
    }

    /// The tasks of a process that have a file table of their own, the first task of each table;
    /// all of them where the kernel does not tell.
    fn own_tables(&self, scratch: &mut Scratch, at: BorrowedFd<'_>, process: &str, pid: i32) -> Vec<i32> {
        let same = |one, other| self.kcmp && kcmp::same_file_table(one, other) == Some(true);
        let mut own: Vec<i32> = Vec::new();
        for task in self.other_tasks(scratch, at, process, pid) {
            if !same(pid, task) && !own.iter().any(|one| same(*one, task)) {
                own.push(task);
            }
        }
        own
    }

    /// Calls `each` with the devices mapped by a process, until it returns false.
    fn each_mapped(
        &self,
        scratch: &mut Scratch,
        process: BorrowedFd<'_>,
        pid: i32,
        mut each: impl FnMut(Rdev, &[u8]) -> bool,
    ) -> rustix::io::Result<()> {
        let mut each = |rdev, path: &[u8]| !self.table.has(rdev) || each(rdev, path);
        if maps::each_device(process, "maps", scratch, &mut each)? {
            return Ok(());
        }
        // Where the first thread has ended and others live on, their common map is theirs alone.
        for task in self.other_tasks(scratch, process, "", pid) {
            if maps::each_device(process, format!("task/{task}/maps"), scratch, &mut each)? {
                break;
            }
        }
        Ok(())
    }

    /// The thorough look. `None` if it has let go or ended since, or only names a device without
    /// having opened it.
    fn examine(&self, scratch: &mut Scratch, pid: i32) -> Option<Found> {
        let process = Process::open(&self.proc, pid).ok()?;
        let first = process.stat()?;
        let mut held = Held::default();
        self.collect(scratch, &process, pid, "fd", Via::Fd, &mut held);
        for task in self.own_tables(scratch, process.dir.as_fd(), "", pid) {
            let table = format!("task/{task}/fd");
            self.collect(scratch, &process, task, &table, Via::ThreadFd, &mut held);
        }
        // A map that cannot be read adds nothing to what was found.
        let _ = self.each_mapped(scratch, process.dir.as_fd(), pid, |rdev, path| {
            if let Some(node) = self.table.find(rdev) {
                let Node { kind, name, module } = node.clone();
                held.mapped.push(Mapping { kind, name, module });
                held.add(Some(rdev), node, Via::Map, || escape(path));
            }
            true
        });
        if held.devices.is_empty() {
            return None;
        }
        let holder = Holder {
            pid,
            start_ticks: first.start_ticks,
            since: None,
            uid: process.uid()?,
            user: None,
            comm: first.comm,
            command: process.command(),
            state: first.state,
            devices: held.devices.into_values().collect(),
            owner: process.read("cgroup", 64 << 10).map_or(Owner::Process, |text| cgroup::owner(&text)),
            screen: false,
            gpu_memory: None,
        };
        Some(Found { holder, files: held.files, mapped: held.mapped })
    }

    /// Gathers what one table of one task holds; `path` leads to it from the process.
    fn collect(
        &self,
        scratch: &mut Scratch,
        process: &Process,
        task: i32,
        path: &str,
        via: Via,
        held: &mut Held,
    ) {
        let Ok(table) = open_dir(&process.dir, path) else { return };
        // What was read before an error is true all the same.
        let _ = self.each_held(scratch, table.as_fd(), |fd, rdev| {
            let info = |field: &str| process.fd_field(path, fd, field);
            let node = match rdev {
                // O_PATH names the node and has not opened the device.
                Some(_) if info("flags").is_some_and(|flags| is_path_only(&flags)) => None,
                Some(rdev) => self.table.find(rdev),
                None => info("exp_name").and_then(|exporter| exported_by(&exporter)),
            };
            // Where kcmp does not tell, a thread shows what its process has once more.
            let seen = via == Via::ThreadFd && held.first.contains(&(fd, rdev));
            if let Some(node) = node.filter(|_| !seen || self.kcmp) {
                if via == Via::Fd {
                    held.first.push((fd, rdev));
                }
                let Node { kind, name, module } = node.clone();
                held.files.push(OpenFile { at: (task, fd), kind, name, module });
                held.add(rdev, node, via, || {
                    readlinkat(&table, fd.to_string(), Vec::new())
                        .map(|target| escape(target.to_bytes()))
                        .unwrap_or_default()
                });
            }
            true
        });
    }
}

/// Devices of one process, gathered.
#[derive(Default)]
struct Held {
    devices: BTreeMap<(Kind, String, Via), Device>,
    files: Vec<OpenFile>,
    mapped: Vec<Mapping>,
    /// Descriptors of the first task's table.
    first: Vec<(i32, Option<Rdev>)>,
}

impl Held {
    fn add(&mut self, rdev: Option<Rdev>, node: Node, via: Via, path: impl FnOnce() -> String) {
        let Node { kind, name, module } = node;
        self.devices
            .entry((kind, name.clone(), via))
            .or_insert_with(|| Device { rdev, kind, name, module, via, count: 0, path: path() })
            .count += 1;
    }
}

/// Whether a file is a dma-buf. They live on a file system of their own, so its number tells; it
/// is learnt from the first file seen on it.
fn is_dma_buf(
    known: &mut HashMap<u32, bool>,
    table: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    found: Stat,
) -> bool {
    if found.dev.major != 0 {
        return false;
    }
    if let Some(known) = known.get(&found.dev.minor) {
        return *known;
    }
    let Ok(target) = readlinkat(table, name, Vec::new()) else { return false };
    let is = target.to_bytes().starts_with(b"/dmabuf:");
    known.insert(found.dev.minor, is);
    is
}

/// The driver's module behind a dma-buf's exporter. nvidia_drm's buffers name `drm` instead, as
/// every DRM driver's do: those stay with the unexplained.
fn exported_by(exporter: &str) -> Option<Node> {
    let module = exporter.replace('-', "_");
    (module == "nvidia" || module.starts_with("nvidia_")).then(|| Node {
        kind: Kind::DmaBuf,
        name: "dma-buf".to_owned(),
        module,
    })
}

/// Whether the octal `flags` of fdinfo have O_PATH.
fn is_path_only(flags: &str) -> bool {
    i32::from_str_radix(flags, 8).is_ok_and(|flags| flags & libc::O_PATH != 0)
}

#[cfg(test)]
mod tests;
