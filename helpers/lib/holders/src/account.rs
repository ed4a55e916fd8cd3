//! Whether the holders found account for the references counted.
//!
//! The count of a module is no count of clients: an open file is one to three references, by
//! driver version, and one open file may be in many file tables. So each distinct open file is
//! counted at the most references it can take; what remains beyond that is certainly held by
//! something that was not found.

use crate::devices::Table;
use crate::kcmp;
use crate::model::{Kind, Module};
use crate::search::{Found, OpenFile};
use std::cmp::Ordering;
use std::collections::BTreeMap;

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
    let files: Vec<&OpenFile> = found.iter().flat_map(|found| &found.files).collect();
    let mut open = Sum::new(table);
    for file in distinct(files, live) {
        open.add(file.kind, &file.module);
    }
    // The sender may have kept them open: then they are counted twice, and that is no harm.
    for (kind, module) in found.iter().flat_map(|found| &found.in_flight) {
        open.add(*kind, module);
    }
    let mut mapped = Sum::new(table);
    let mut only_mapped = Sum::new(table);
    for found in found {
        let mut counted: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
        for mapping in &found.mapped {
            mapped.add(mapping.kind, &mapping.module);
            // Mapped and not open in this process: one file at least.
            if !counted.contains(&mapping.name.as_str()) {
                counted.push(&mapping.name);
                only_mapped.add(mapping.kind, &mapping.module);
            }
        }
    }
    let mut account = Account::default();
    for module in modules {
        let name = module.name.as_str();
        let excess = module.excess();
        let rest = excess.saturating_sub(open.of(name) + mapped.of(name));
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

    fn add(&mut self, kind: Kind, module: &str) {
        for (module, references) in self.table.references(kind, module) {
            *self.by_module.entry(module.to_owned()).or_default() += references;
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

/// One descriptor for each open file. Where the kernel does not tell them apart, all of them:
/// then more is taken for explained, never less.
fn distinct(mut files: Vec<&OpenFile>, live: bool) -> Vec<&OpenFile> {
    if !live {
        return files;
    }
    let compare = |one: &OpenFile, other: &OpenFile| {
        kcmp::compare_files(one.at, other.at).unwrap_or_else(|| one.at.cmp(&other.at))
    };
    // A descriptor closed meanwhile has no place in the order; sorting copes with that.
    insertion_sort(&mut files, compare);
    files.dedup_by(|one, other| kcmp::compare_files(one.at, other.at) == Some(Ordering::Equal));
    files
}

/// Binary insertion. The standard sorts may panic on an order that does not hold, and this one
/// cannot be relied on: processes end while their files are compared.
fn insertion_sort(files: &mut Vec<&OpenFile>, compare: impl Fn(&OpenFile, &OpenFile) -> Ordering) {
    let mut sorted: Vec<&OpenFile> = Vec::with_capacity(files.len());
    for file in files.drain(..) {
        let at = sorted.partition_point(|other| compare(other, file) == Ordering::Less);
        sorted.insert(at, file);
    }
    *files = sorted;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Holder, Owner};
    use crate::search::Mapping;

    fn module(refcount: i64) -> Module {
        Module { name: "nvidia".into(), refcount, dependents: Vec::new(), of_driver: true }
    }

    fn found(files: usize, mapped: usize) -> Found {
        let (kind, name, module) = (Kind::Ctl, "nvidiactl".to_owned(), "nvidia".to_owned());
        let mapping = || Mapping { kind, name: name.clone(), module: module.clone() };
        let file = |fd| OpenFile { at: (1, fd as i32), kind, name: name.clone(), module: module.clone() };
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
            mapped: (0..mapped).map(|_| mapping()).collect(),
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
    fn who_comes_or_goes_is_not_hidden() {
        assert_eq!(fewest(&[module(4)], &[module(1)]), [module(1)]);
        assert_eq!(fewest(&[module(1)], &[module(4)]), [module(1)]);
        assert!(fewest(&[module(1)], &[]).is_empty());
    }
}
