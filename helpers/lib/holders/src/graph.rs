//! The module graph and its reference counts: whether there is anybody to look for at all.

use crate::model::Module;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use step::{BY_NAME, Root};

/// The module everything of NVIDIA's stands on.
const TRUNK: &str = "nvidia";

/// The modules that NVIDIA's driver is made of. Any other module on the graph belongs to
/// somebody else (gdrdrv, nvidia_fs, a network driver) and is a holder in the kernel.
const OF_DRIVER: [&str; 6] =
    [TRUNK, "nvidia_modeset", "nvidia_drm", "nvidia_uvm", "nvidia_peermem", "nvidia_vgpu_vfio"];

/// Whether a module is NVIDIA's own; any other on the graph uses it.
pub fn is_of_driver(module: &str) -> bool {
    OF_DRIVER.contains(&module)
}

/// The loaded modules that have to go for `nvidia` to go, with their reference counts, dependents
/// first. Empty when the driver is not loaded.
///
/// This is the fast path: where [`Module::excess`] is 0 for all of them no process holds the
/// driver, whatever its file table says, and there is nothing to scan for. It costs two reads a
/// module, and any user may ask.
///
/// # Errors
/// When a module's entry in `/sys/module` is there but cannot be read.
pub fn refcounts(root: &Root) -> Result<Vec<Module>> {
    let modules = root.path("/sys/module");
    let mut found = BTreeMap::new();
    let mut ask = vec![TRUNK.to_owned()];
    while let Some(name) = ask.pop() {
        if found.contains_key(&name) {
            continue;
        }
        if let Some(module) = read(&modules.join(&name), &name)? {
            ask.extend(module.dependents.iter().cloned());
            found.insert(name, module);
        }
    }
    if !found.is_empty() {
        for (name, _) in BY_NAME {
            if let Some(module) = read(&modules.join(name), name)? {
                found.entry(name.to_owned()).or_insert(module);
            }
        }
    }
    Ok(leaves_first(found))
}

/// How many references to the driver those of `modules` take that do not stand in its `holders`.
pub fn taken_by_name(modules: &[Module]) -> u64 {
    let is_listed = |name: &str| {
        modules.iter().any(|module| module.name == TRUNK && module.dependents.iter().any(|d| d == name))
    };
    let is_loaded = |name: &str| modules.iter().any(|module| module.name == name);
    BY_NAME.iter().filter(|(name, _)| is_loaded(name) && !is_listed(name)).map(|(_, taken)| taken).sum()
}

/// One module; `None` if it is not loaded, or is gone by now.
fn read(dir: &Path, name: &str) -> Result<Option<Module>> {
    let refcnt = dir.join("refcnt");
    let refcount = match fs::read_to_string(&refcnt) {
        Ok(text) => {
            text.trim().parse().map_err(|_| Error::Odd { path: refcnt.clone(), text: text.clone() })?
        }
        // Built into the kernel or not there: nothing that could be unloaded either way.
        Err(error) if gone(&error) => return Ok(None),
        Err(source) => return Err(Error::Read { path: refcnt, source }),
    };
    let holders = dir.join("holders");
    let mut dependents = Vec::new();
    match fs::read_dir(&holders) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => dependents.push(entry.file_name().to_string_lossy().into_owned()),
                    Err(error) if gone(&error) => break,
                    Err(source) => return Err(Error::Read { path: holders, source }),
                }
            }
        }
        Err(error) if gone(&error) => {}
        Err(source) => return Err(Error::Read { path: holders, source }),
    }
    dependents.sort();
    let of_driver = is_of_driver(name);
    Ok(Some(Module { name: name.to_owned(), refcount, dependents, of_driver }))
}

/// sysfs says ENODEV when the module goes away under a reader.
fn gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
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

    #[test]
    fn a_refcount_that_is_no_number_is_an_error_that_names_the_file() {
        let dir = tree(&[("nvidia", 0, &[])]);
        fs::write(dir.path().join("sys/module/nvidia/refcnt"), "many").expect("written");
        let error = refcounts(&Root::at(dir.path())).expect_err("no number");
        assert!(error.to_string().contains("nvidia/refcnt"), "{error}");
    }
}
