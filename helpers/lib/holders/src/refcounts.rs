// SPDX-License-Identifier: MIT
//! The module graph and its reference counts: whether there is a holder to look for at all.

use crate::Result;
use crate::model::Module;
use std::collections::BTreeMap;
use step::Root;

/// The loaded modules that have to go for `nvidia` to go, with their reference counts, dependents
/// first. Empty when the driver is not loaded.
///
/// This is the fast path: where [`Module::is_unused`] of all of them no process holds the
/// driver, whatever its file table says, and there is nothing to scan for. It costs two reads a
/// module, and any user may ask.
///
/// # Errors
/// When a module's entry in `/sys/module` is there but cannot be read.
pub fn refcounts(root: &Root) -> Result<Vec<Module>> {
    let found = graph::modules(root)?.into_iter().map(|(name, module)| {
        let of_driver = graph::is_of_driver(&name);
        (name.clone(), Module { name, refcount: module.refcount, dependents: module.holders, of_driver })
    });
    Ok(leaves_first(found.collect()))
}

/// Orders modules so that each comes after all that stand on it.
fn leaves_first(mut modules: BTreeMap<String, Module>) -> Vec<Module> {
    let mut ordered: Vec<Module> = Vec::with_capacity(modules.len());
    while !modules.is_empty() {
        let ready = modules
            .values()
            .find(|module| module.dependents.iter().all(|name| !modules.contains_key(name)))
            // The kernel has no cycles; a made-up tree may, and must end too.
            .or_else(|| modules.values().next())
            .map(|module| module.name.clone());
        if let Some(module) = ready.and_then(|name| modules.remove(&name)) {
            ordered.push(module);
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::taken_by_name;
    use std::fs;

    fn tree(modules: &[(&str, i64, &[&str])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, refcount, dependents) in modules {
            let module = dir.path().join("sys/module").join(name);
            fs::create_dir_all(module.join("holders")).expect("created");
            fs::write(module.join("refcnt"), format!("{refcount}\n")).expect("written");
            for dependent in *dependents {
                fs::create_dir(module.join("holders").join(dependent)).expect("created");
            }
        }
        dir
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn a_kernel_that_counts_nothing_leaves_open_whether_a_module_is_used() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // As seen without CONFIG_MODULE_UNLOAD: neither refcnt nor holders.
        for name in ["nvidia", "nvidia_uvm"] {
            let module = dir.path().join("sys/module").join(name);
            fs::create_dir_all(&module).expect("created");
            fs::write(module.join("initstate"), "live\n").expect("written");
        }
        let modules = refcounts(&Root::at(dir.path())).expect("readable");
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["nvidia", "nvidia_uvm"]);
        assert!(modules.iter().all(|module| module.excess() == 0 && !module.is_unused()));
    }

    #[test]
    fn no_driver_is_an_empty_graph() {
        let dir = tree(&[("ext4", 1, &[])]);
        assert!(refcounts(&Root::at(dir.path())).expect("readable").is_empty());
    }

    #[test]
    fn the_whole_graph_comes_leaves_first_with_what_is_not_dependents() {
        let dir = tree(&[
            ("nvidia", 7, &["nvidia_modeset", "nvidia_uvm", "gdrdrv"]),
            ("nvidia_modeset", 1, &["nvidia_drm"]),
            ("nvidia_drm", 0, &[]),
            ("nvidia_uvm", 2, &[]),
            ("gdrdrv", 0, &[]),
        ]);
        let modules = refcounts(&Root::at(dir.path())).expect("readable");
        assert_eq!(names(&modules), ["gdrdrv", "nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia"]);
        let excess: Vec<u64> = modules.iter().map(Module::excess).collect();
        assert_eq!(excess, [0, 0, 0, 2, 4]);
        let foreign: Vec<&str> = modules.iter().filter(|m| !m.of_driver).map(|m| m.name.as_str()).collect();
        assert_eq!(foreign, ["gdrdrv"]);
    }

    #[test]
    fn a_module_that_looks_the_driver_up_by_name_is_of_the_graph() {
        let old = tree(&[("nvidia", 6, &[]), ("nvidia_fs", 1, &[])]);
        let modules = refcounts(&Root::at(old.path())).expect("readable");
        assert_eq!(names(&modules), ["nvidia", "nvidia_fs"]);
        assert_eq!((modules[0].excess(), taken_by_name(&modules)), (6, 6));
        assert!(!modules[1].of_driver && modules[1].excess() == 1);
        let new = tree(&[("nvidia", 1, &["nvidia_fs"]), ("nvidia_fs", 0, &[])]);
        let modules = refcounts(&Root::at(new.path())).expect("readable");
        assert_eq!((modules.len(), taken_by_name(&modules)), (2, 0), "once, and as any other");
        let alone = tree(&[("nvidia_fs", 0, &[])]);
        assert!(refcounts(&Root::at(alone.path())).expect("readable").is_empty());
    }

    #[test]
    fn a_module_on_its_way_out_has_no_excess() {
        let dir = tree(&[("nvidia", -1, &[])]);
        let modules = refcounts(&Root::at(dir.path())).expect("readable");
        assert_eq!(modules[0].excess(), 0);
    }
}
