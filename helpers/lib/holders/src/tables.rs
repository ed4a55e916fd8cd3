// SPDX-License-Identifier: MIT
//! The tables of open files and the maps of a process, looked through for the driver's devices.

use crate::device::{Kind, Rdev};
use crate::devices::Node;
use crate::search::Search;
use crate::walk::{Scratch, Stat, each_entry, number, open_dir, stat};
use crate::{kcmp, maps};
use rustix::fd::BorrowedFd;
use rustix::fs::readlinkat;
use rustix::io::Errno;
use std::cmp::Ordering;
use std::collections::HashMap;

impl Search {
    /// Calls `each` with the descriptors of a table that lead to a device or a dma-buf of the
    /// driver, until it returns false. One system call a descriptor.
    pub(crate) fn each_held(
        &self,
        scratch: &mut Scratch,
        table: BorrowedFd<'_>,
        mut each: impl FnMut(i32, Option<Rdev>) -> bool,
    ) -> rustix::io::Result<()> {
        let Scratch { entries, dma_bufs, .. } = scratch;
        let mut denied = None;
        each_entry(table, entries, |name| {
            let found = match stat(table, name) {
                Ok(found) => found,
                // A table may be listed and its descriptors not looked at. The others still count.
                Err(error @ (Errno::ACCESS | Errno::PERM)) => {
                    denied = Some(error);
                    return true;
                }
                // Closed since.
                Err(_) => return true,
            };
            let rdev = match found.file_type {
                libc::S_IFCHR if self.table.has(found.rdev) => Some(found.rdev),
                0 | libc::S_IFREG if is_dma_buf(dma_bufs, table, name, found) => None,
                _ => return true,
            };
            number(name).is_none_or(|fd| each(fd, rdev))
        })?;
        denied.map_or(Ok(()), Err)
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
    pub(crate) fn own_tables(
        &self,
        scratch: &mut Scratch,
        at: BorrowedFd<'_>,
        process: &str,
        pid: i32,
    ) -> Vec<i32> {
        let mut others = self.other_tasks(scratch, at, process, pid);
        if self.kcmp {
            others.retain(|task| kcmp::same_file_table(pid, *task) != Some(true));
            one_a_table(others, kcmp::compare_file_tables)
        } else {
            others
        }
    }

    /// Calls `each` with the devices mapped by a process, until it returns false.
    pub(crate) fn each_mapped(
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
}

/// The first task of each table, by their order: a process may have very many tasks. One that has ended
/// meanwhile compares with nothing, and is kept.
fn one_a_table(tasks: Vec<i32>, compare: impl Fn(i32, i32) -> Option<Ordering>) -> Vec<i32> {
    let mut sorted: Vec<i32> = Vec::new();
    for task in tasks {
        let at = sorted.partition_point(|other| compare(*other, task) == Some(Ordering::Less));
        if sorted.get(at).is_none_or(|other| compare(*other, task) != Some(Ordering::Equal)) {
            sorted.insert(at, task);
        }
    }
    sorted
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
pub(crate) fn exported_by(exporter: &str) -> Option<Node> {
    let module = exporter.replace('-', "_");
    (module == "nvidia" || module.starts_with("nvidia_")).then(|| Node {
        kind: Kind::DmaBuf,
        name: "dma-buf".to_owned(),
        module,
    })
}

/// Whether the octal `flags` of fdinfo have O_PATH.
pub(crate) fn is_path_only(flags: &str) -> bool {
    i32::from_str_radix(flags, 8).is_ok_and(|flags| flags & libc::O_PATH != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn one_task_of_each_table_in_few_comparisons() {
        let compared = Cell::new(0);
        // Tasks with the same last three digits share a table; those from 9000 on have ended.
        let compare = |one: i32, other: i32| {
            compared.set(compared.get() + 1);
            (one < 9000 && other < 9000).then(|| (one % 1000).cmp(&(other % 1000)))
        };
        let tasks: Vec<i32> = (1..=4000).collect();
        assert_eq!(one_a_table(tasks, compare).len(), 1000);
        assert!(compared.get() < 4000 * 12, "{} comparisons", compared.get());
        assert_eq!(one_a_table(vec![9001, 9002], compare).len(), 2);
    }
}
