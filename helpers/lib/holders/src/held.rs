// SPDX-License-Identifier: MIT
//! What one process holds, gathered from its tables.

use crate::device::{Device, Kind, Rdev, Via};
use crate::devices::Node;
use crate::process::Process;
use crate::search::{OpenFile, Search};
use crate::tables::{exported_by, is_path_only};
use crate::text::escape;
use crate::walk::{Scratch, is_opened, open_dir};
use rustix::fd::AsFd;
use rustix::fs::readlinkat;
use std::collections::{BTreeMap, HashSet};

/// Devices of one process, gathered.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) devices: BTreeMap<(Kind, String, Via), Device>,
    /// The devices open, each once.
    pub(crate) nodes: Vec<Node>,
    pub(crate) files: Vec<OpenFile>,
    /// Descriptors of the first task's table, where the kernel does not tell tables apart.
    first: HashSet<(i32, Option<Rdev>)>,
}

impl Held {
    pub(crate) fn add(
        &mut self,
        rdev: Option<Rdev>,
        node: &Node,
        via: Via,
        count: u32,
        path: impl FnOnce() -> String,
    ) {
        let Node { kind, name, module } = node.clone();
        let device = self.devices.entry((kind, name.clone(), via)).or_insert_with(|| Device {
            rdev,
            kind,
            name,
            module,
            via,
            count: 0,
            path: path(),
        });
        device.count = device.count.saturating_add(count);
    }

    /// Adds an open file.
    fn open(&mut self, at: (i32, i32), node: &Node) {
        // Mostly the device of the descriptor before.
        let known = self.nodes.iter().rposition(|known| known == node);
        let node = known.unwrap_or_else(|| {
            self.nodes.push(node.clone());
            self.nodes.len() - 1
        });
        self.files.push(OpenFile { at, node: node as u32 });
    }
}

impl Search {
    /// Gathers what one table of one task holds; `path` leads to it from the process.
    pub(crate) fn collect(
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
                Some(_)
                    if !is_opened(&table, fd) && info("flags").is_some_and(|flags| is_path_only(&flags)) =>
                {
                    None
                }
                Some(rdev) => self.table.find(rdev),
                None => info("exp_name").and_then(|exporter| exported_by(&exporter)),
            };
            // Where kcmp does not tell, a thread shows what its process has once more.
            let seen = via == Via::ThreadFd && held.first.contains(&(fd, rdev));
            if let Some(node) = node.filter(|_| !seen || self.kcmp) {
                if via == Via::Fd && !self.kcmp {
                    held.first.insert((fd, rdev));
                }
                held.open((task, fd), &node);
                held.add(rdev, &node, via, 1, || {
                    readlinkat(&table, fd.to_string(), Vec::new())
                        .map(|target| escape(target.to_bytes()))
                        .unwrap_or_default()
                });
            }
            true
        });
    }
}
