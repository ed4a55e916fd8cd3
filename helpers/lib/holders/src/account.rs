//! Whether the holders found account for the references counted.
//!
//! The count of a module is no count of clients: an open file is one to three references, by
//! driver version, and one open file may be in many file tables. So each distinct open file is
//! counted at the most references it can take; what remains beyond that is certainly held by
//! something that was not found.

use crate::devices::Table;
use crate::kcmp;
use crate::model::Module;
use crate::search::{Found, OpenFile};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// References by module that nothing found accounts for.
pub(crate) fn unexplained(
    modules: &[Module],
    table: &Table,
    found: &[Found],
    live: bool,
) -> BTreeMap<String, u64> {
    let files: Vec<&OpenFile> = found.iter().flat_map(|found| &found.files).collect();
    let mut most: BTreeMap<&str, u64> = BTreeMap::new();
    let mut count = |kind, module| {
        for (module, references) in table.references(kind, module) {
            *most.entry(module).or_default() += references;
        }
    };
    for file in distinct(files, live) {
        count(file.kind, &file.module);
    }
    for (kind, module) in found.iter().flat_map(|found| &found.mapped) {
        count(*kind, module);
    }
    modules
        .iter()
        .filter_map(|module| {
            let explained = most.get(module.name.as_str()).copied().unwrap_or(0);
            let rest = module.excess().saturating_sub(explained);
            (rest > 0).then(|| (module.name.clone(), rest))
        })
        .collect()
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
    use crate::model::{Holder, Kind, Owner};

    fn module(refcount: i64) -> Module {
        Module { name: "nvidia".into(), refcount, dependents: Vec::new(), of_driver: true }
    }

    fn found(files: usize, mapped: usize) -> Found {
        let file = |fd| OpenFile { at: (1, fd as i32), kind: Kind::Ctl, module: "nvidia".to_owned() };
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
                gpu_memory: None,
            },
            files: (0..files).map(file).collect(),
            mapped: vec![(Kind::Ctl, "nvidia".to_owned()); mapped],
        }
    }

    fn rest(refcount: i64, found: &[Found]) -> Option<u64> {
        let table = Table::of_major(195, "nvidia");
        unexplained(&[module(refcount)], &table, found, false).get("nvidia").copied()
    }

    #[test]
    fn every_reference_counts() {
        assert_eq!(rest(0, &[]), None);
        assert_eq!(rest(2, &[]), Some(2));
        assert_eq!(rest(3, &[found(2, 0)]), Some(1));
        assert_eq!(rest(2, &[found(2, 0)]), None);
        assert_eq!(rest(2, &[found(1, 1)]), None, "a mapping may keep a file of its own");
        assert_eq!(rest(1, &[found(3, 0)]), None, "inherited descriptors");
    }

    #[test]
    fn who_comes_or_goes_is_not_hidden() {
        assert_eq!(fewest(&[module(4)], &[module(1)]), [module(1)]);
        assert_eq!(fewest(&[module(1)], &[module(4)]), [module(1)]);
        assert!(fewest(&[module(1)], &[]).is_empty());
    }
}
