// SPDX-License-Identifier: MIT
//! Whether the holders found account for the references counted.
//!
//! The count of a module is no count of clients: an open file is one to three references, by
//! driver version, and one open file may be in many file tables. So each distinct open file is
//! counted at the most references it can take; what remains beyond that is certainly held by
//! something that was not found.

use crate::device::Kind;
use crate::devices::{Node, Table};
use crate::kcmp;
use crate::model::Module;
use crate::search::{Found, OpenFile};
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// So many comparisons of open files, and no more, tell dup'ed and inherited descriptors apart: a
/// tenth of a second. Beyond, every descriptor counts as a file of its own when it is asked what is
/// certainly unexplained, and not at all when it is asked whether there is a doubt.
const COMPARISONS: u32 = 1 << 17;

/// How the references of the modules compare with what was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// References by module that remain when every mapping is taken to keep a file of its own:
    /// certainly held by something that was not found.
    pub(crate) unexplained: BTreeMap<String, u64>,
    /// Whether references remain when mappings are taken to be of files that were found.
    pub(crate) in_doubt: bool,
}

/// Compares.
pub(crate) fn account(modules: &[Module], table: &Table, found: &[Found], live: bool) -> Account {
    let Files { distinct, not_compared } = files(found, live);
    let (mut open, mut perhaps) = (Sum::new(table), Sum::new(table));
    for (node, count) in distinct {
        open.add(node.0, node.1, count);
    }
    for (node, count) in not_compared {
        perhaps.add(node.0, node.1, count);
    }
    // The sender may have kept them open: then they are counted twice, and that is no harm.
    for (node, count) in found.iter().flat_map(|found| &found.in_flight) {
        open.add(node.kind, &node.module, *count);
    }
    let mut mapped = Sum::new(table);
    let mut only_mapped = Sum::new(table);
    for found in found {
        for (node, count) in &found.mapped {
            mapped.add(node.kind, &node.module, *count);
            // Mapped and not open in this process: one file at least.
            if !found.nodes.iter().any(|open| open.name == node.name) {
                only_mapped.add(node.kind, &node.module, 1);
            }
        }
    }
    let mut account = Account::default();
    for module in modules {
        let name = module.name.as_str();
        let excess = module.excess();
        let rest = excess.saturating_sub(open.of(name) + perhaps.of(name) + mapped.of(name));
        if rest > 0 {
            account.unexplained.insert(module.name.clone(), rest);
        }
        account.in_doubt |= excess > open.of(name) + only_mapped.of(name);
    }
    account
}

/// The most references that some files can take, by module.
struct Sum<'a> {
    table: &'a Table,
    by_module: BTreeMap<String, u64>,
}

impl<'a> Sum<'a> {
    fn new(table: &'a Table) -> Self {
        Self { table, by_module: BTreeMap::new() }
    }

    fn add(&mut self, kind: Kind, module: &str, files: u64) {
        for (module, references) in self.table.references(kind, module) {
            *self.by_module.entry(module.to_owned()).or_default() += references.saturating_mul(files);
        }
    }

    fn of(&self, module: &str) -> u64 {
        self.by_module.get(module).copied().unwrap_or(0)
    }
}

/// The smaller of two counts of the same modules, so that a process that came or went between
/// them is not taken for a hidden one.
pub(crate) fn fewest(one: &[Module], other: &[Module]) -> Vec<Module> {
    one.iter()
        .filter_map(|module| {
            let second = other.iter().find(|second| second.name == module.name)?;
            Some(if second.excess() < module.excess() { second } else { module }.clone())
        })
        .collect()
}

/// Numbers of open files, by what is open.
type Counts<'a> = BTreeMap<(Kind, &'a str), u64>;

/// The open files of all processes.
struct Files<'a> {
    /// Each once; where the kernel does not tell them apart, all descriptors: then more is taken for
    /// explained, never less.
    distinct: Counts<'a>,
    /// Descriptors that were too many to be looked at.
    not_compared: Counts<'a>,
}

fn files(found: &[Found], live: bool) -> Files<'_> {
    let budget = Cell::new(COMPARISONS);
    let compare = |one: &OpenFile, other: &OpenFile| {
        budget.set(budget.get().saturating_sub(1));
        // A descriptor closed meanwhile has no place in the order; the search copes with that.
        kcmp::compare_files(one.at, other.at).unwrap_or_else(|| one.at.cmp(&other.at))
    };
    let mut files = Files { distinct: Counts::new(), not_compared: Counts::new() };
    // Who has few comes first, and is counted exactly whatever another has.
    let mut processes: Vec<&Found> = found.iter().collect();
    processes.sort_by_key(|found| found.files.len());
    // Sorted. The standard sorts may panic on an order that does not hold, and this one cannot be
    // relied on: processes end while their files are compared.
    let mut known: Vec<OpenFile> = Vec::new();
    for found in processes {
        for file in &found.files {
            let Node { kind, module, .. } = &found.nodes[file.node as usize];
            let what = (*kind, module.as_str());
            if !live {
                *files.distinct.entry(what).or_default() += 1;
                continue;
            }
            if budget.get() == 0 {
                *files.not_compared.entry(what).or_default() += 1;
                continue;
            }
            let at = known.partition_point(|other| compare(other, file) == Ordering::Less);
            if known.get(at).is_none_or(|other| compare(other, file) != Ordering::Equal) {
                known.insert(at, *file);
                *files.distinct.entry(what).or_default() += 1;
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Holder, Owner};

    fn module(refcount: i64) -> Module {
        Module { name: "nvidia".into(), refcount: Some(refcount), dependents: Vec::new(), of_driver: true }
    }

    fn found(files: usize, mapped: usize) -> Found {
        let node = Node { kind: Kind::Ctl, name: "nvidiactl".to_owned(), module: "nvidia".to_owned() };
        let file = |fd| OpenFile { at: (1, fd as i32), node: 0 };
        Found {
            holder: Holder {
                pid: 1,
                start_ticks: 1,
                since: None,
                uid: 0,
                user: None,
                comm: String::new(),
                command: Vec::new(),
                state: 'S',
                devices: Vec::new(),
                owner: Owner::Process,
                screen: false,
                gpu_memory: None,
            },
            files: (0..files).map(file).collect(),
            mapped: if mapped > 0 { vec![(node.clone(), mapped as u64)] } else { Vec::new() },
            nodes: if files > 0 { vec![node] } else { Vec::new() },
            in_flight: Vec::new(),
        }
    }

    /// What is certainly unexplained, and whether there is a doubt.
    fn rest(refcount: i64, found: &[Found]) -> (u64, bool) {
        let table = Table::of_major(195, "nvidia");
        let account = account(&[module(refcount)], &table, found, false);
        (account.unexplained.get("nvidia").copied().unwrap_or(0), account.in_doubt)
    }

    #[test]
    fn every_reference_counts() {
        assert_eq!(rest(0, &[]), (0, false));
        assert_eq!(rest(2, &[]), (2, true));
        assert_eq!(rest(3, &[found(2, 0)]), (1, true));
        assert_eq!(rest(2, &[found(2, 0)]), (0, false));
        assert_eq!(rest(1, &[found(3, 0)]), (0, false), "inherited descriptors");
    }

    #[test]
    fn a_mapping_may_keep_a_file_of_its_own_or_not() {
        assert_eq!(rest(1, &[found(1, 1)]), (0, false));
        assert_eq!(rest(2, &[found(1, 1)]), (0, true));
        assert_eq!(rest(3, &[found(1, 1)]), (1, true));
        assert_eq!(rest(1, &[found(0, 2)]), (0, false), "one file at least, if none is open");
    }

    #[test]
    fn descriptors_without_number_cost_no_more_than_others_and_leave_a_doubt() {
        // One open file, and descriptors of it in this very process.
        let file = std::fs::File::open("/dev/null").expect("open");
        let me = i32::try_from(std::process::id()).expect("a pid");
        let of = |count: usize| {
            let mut found = found(count, 0);
            for file_of in &mut found.files {
                file_of.at = (me, std::os::fd::AsRawFd::as_raw_fd(&file));
            }
            found
        };
        let table = Table::of_major(195, "nvidia");
        let count = |files: usize| account(&[module(1)], &table, &[of(files)], true);
        assert!(!count(1000).in_doubt, "one file explains one reference");
        let begin = std::time::Instant::now();
        let many = account(&[module(2)], &table, &[of(1_000_000), of(1)], true);
        assert!(many.unexplained.is_empty() && many.in_doubt);
        assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
        assert_eq!(count(1000).unexplained.len() as u64, 0);
        assert_eq!(account(&[module(2)], &table, &[of(1000)], true).unexplained["nvidia"], 1);
    }

    #[test]
    fn who_comes_or_goes_is_not_hidden() {
        assert_eq!(fewest(&[module(4)], &[module(1)]), [module(1)]);
        assert_eq!(fewest(&[module(1)], &[module(4)]), [module(1)]);
        assert!(fewest(&[module(1)], &[]).is_empty());
    }
}
