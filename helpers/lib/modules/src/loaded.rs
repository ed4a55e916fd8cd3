// SPDX-License-Identifier: MIT
//! What is loaded: the driver and everything that hangs on it, as the kernel says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read};

use anyhow::{Context, Result, bail};
use graph::{DRIVER, attribute, names};
use step::{BY_NAME, Root};

/// `/sys/module/NAME/initstate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Serving.
    Live,
    /// Its init function has not returned.
    Coming,
    /// Its exit function has not returned: if that lasts, only a reboot helps.
    Going,
}

/// A module of the driver's graph, as it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What the ledger keeps of it.
    pub module: ledger::Module,
    /// How far it is.
    pub state: State,
    /// References: dependents and open files, though one open file may count for several. None where the kernel
    /// cannot unload modules, and counts nothing.
    pub refcount: Option<i64>,
    /// The modules that use it.
    pub holders: Vec<String>,
}

impl Loaded {
    /// References that no loaded dependent explains: a process has a file open, or the like.
    /// 0 where the kernel counts nothing.
    pub fn users(&self) -> i64 {
        self.refcount.map_or(0, |count| count - self.holders.len() as i64)
    }

    /// What is wrong with its state, as a sentence without its end; none where it is live.
    pub fn trouble(&self) -> Option<String> {
        let way = match self.state {
            State::Live => return None,
            State::Coming => "into",
            State::Going => "out of",
        };
        Some(format!(
            "{} is on its way {way} the kernel and does not get there: reboot the machine",
            self.module.name
        ))
    }
}

/// What is wrong with those modules of the driver that are stuck on their way in or out; a moment's look, so
/// that there may be one that just comes or goes.
///
/// # Errors
/// `/sys/module` cannot be read.
pub fn stuck(root: &Root) -> Result<Vec<String>> {
    Ok(chain(root)?.iter().filter_map(Loaded::trouble).collect())
}

/// The driver's graph in the order in which it can be unloaded: a module comes before those that it
/// uses. Empty when the driver is not loaded.
///
/// The graph is `nvidia` and, recursively, the modules in its `holders/`; so modules of other
/// people that hang on it (gdrdrv, nvidia_fs, nvidia_peermem) are found without a list of names; and those that
/// take references to it without being there, which only a list has ([`BY_NAME`]).
///
/// # Errors
/// `/sys/module` or `/proc/modules` cannot be read or make no sense.
pub fn chain(root: &Root) -> Result<Vec<Loaded>> {
    let mut graph = BTreeMap::new();
    for (name, module) in graph::modules(root)? {
        if let Some(loaded) = read(root, &name, module)? {
            graph.insert(name, loaded);
        }
    }
    // The kernel lists the newest module first, and nothing can be loaded before what it needs.
    let path = root.path("/proc/modules");
    let list = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut order = Vec::new();
    for line in list.lines() {
        if let Some(module) = line.split(' ').next().and_then(|name| graph.remove(name)) {
            order.push(module);
        }
    }
    if let Some(name) = graph.keys().next() {
        bail!("{name} is in /sys/module but not in {}", path.display());
    }
    let mut gone = BTreeSet::new();
    for module in &order {
        if let Some(user) = module.holders.iter().find(|user| !gone.contains(user.as_str())) {
            bail!("{} is listed before {user}, which uses it", module.module.name);
        }
        gone.insert(module.module.name.as_str());
    }
    Ok(order)
}

/// Whether a module of `chain`, the driver's graph, uses the driver without standing in its `holders/`: as long
/// as it is loaded the driver's count does not tell whether anything else uses it.
pub fn is_hidden(chain: &[Loaded], module: &Loaded) -> bool {
    let name = &module.module.name;
    BY_NAME.iter().any(|(hidden, _)| hidden == name)
        && chain.iter().all(|other| other.module.name != DRIVER || !other.holders.contains(name))
}

/// The module `name`, if it is loaded.
///
/// # Errors
/// What `/sys/module/NAME` holds cannot be read.
pub fn loaded(root: &Root, name: &str) -> Result<Option<Loaded>> {
    match graph::module(root, name)? {
        Some(module) => read(root, name, module),
        None => Ok(None),
    }
}

fn read(root: &Root, name: &str, module: graph::Module) -> Result<Option<Loaded>> {
    let directory = root.path("/sys/module").join(name);
    // A module built into the kernel has none.
    let Some(state) = module.state else { return Ok(None) };
    let state = match state.as_str() {
        "live" => State::Live,
        "coming" => State::Coming,
        "going" => State::Going,
        other => bail!("{}: unknown initstate {other:?}", directory.display()),
    };
    Ok(Some(Loaded {
        module: ledger::Module {
            name: name.to_owned(),
            version: attribute(&directory.join("version"))?,
            srcversion: attribute(&directory.join("srcversion"))?,
            // Dozens of files, which only a snapshot needs.
            parameters: BTreeMap::new(),
        },
        state,
        refcount: module.refcount,
        holders: module.holders,
    }))
}

/// The loaded driver's version, if it is loaded.
///
/// # Errors
/// `/sys/module/nvidia/version` cannot be read.
pub fn driver_version(root: &Root) -> Result<Option<String>> {
    Ok(attribute(&root.path("/sys/module/nvidia/version"))?)
}

/// PCI addresses of the devices bound to the driver, sorted.
///
/// # Errors
/// `/sys/bus/pci/drivers/nvidia` cannot be read.
pub fn gpus(root: &Root) -> Result<Vec<String>> {
    let mut found: Vec<String> = names(&root.path("/sys/bus/pci/drivers/nvidia"))?
        .into_iter()
        .filter(|name| name.contains(':') && name.contains('.'))
        .collect();
    found.sort();
    Ok(found)
}

/// Whether the configuration space of the PCI device at `address` answers; none where there is no such
/// device. One that is off the bus reads as ones.
///
/// # Errors
/// It is there and cannot be read.
pub fn on_bus(root: &Root, address: &str) -> Result<Option<bool>> {
    let path = root.path(format!("/sys/bus/pci/devices/{address}/config"));
    match fs::File::open(&path) {
        Ok(mut file) => {
            let mut vendor = [0; 2];
            file.read_exact(&mut vendor).with_context(|| format!("read {}", path.display()))?;
            Ok(Some(vendor != [0xff; 2]))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
    }
}

/// Whether `version` is one of a driver: three digits and more numbers. A library's own version is shorter: NVIDIA's Tegra has a `libcuda.so.1.1`.
pub fn is_driver_version(version: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    version.split_once('.').is_some_and(|(branch, rest)| {
        branch.len() >= 3 && is_number(branch) && rest.split('.').all(is_number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_in_no_holders_is_of_the_graph_all_the_same() {
        let graph = |holders: &[&str], list: &str| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            for (name, refcount) in [("nvidia", "6"), ("nvidia_fs", "0")] {
                let module = root.path("/sys/module").join(name);
                fs::create_dir_all(module.join("holders")).expect("creates");
                fs::write(module.join("initstate"), "live\n").expect("writes");
                fs::write(module.join("refcnt"), refcount).expect("writes");
            }
            for holder in holders {
                fs::create_dir(root.path("/sys/module/nvidia/holders").join(holder)).expect("creates");
            }
            fs::create_dir_all(root.path("/proc")).expect("creates");
            fs::write(root.path("/proc/modules"), list).expect("writes");
            let graph = chain(&root).expect("reads");
            let hidden = |module: &Loaded| (module.module.name.clone(), is_hidden(&graph, module));
            graph.iter().map(hidden).collect::<Vec<_>>()
        };
        let list = "nvidia_fs 1 0 - Live 0x0\nnvidia 1 6 - Live 0x0\n";
        let named = |fs, nvidia| vec![("nvidia_fs".to_owned(), fs), ("nvidia".to_owned(), nvidia)];
        assert_eq!(graph(&[], list), named(true, false));
        assert_eq!(graph(&["nvidia_fs"], list), named(false, false), "one of 2.17.5 or later");
    }

    #[test]
    fn a_gpu_off_the_bus_reads_as_ones() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let there = |name: &str, config: &[u8]| {
            let path = root.path(format!("/sys/bus/pci/devices/{name}"));
            fs::create_dir_all(&path).expect("creates");
            fs::write(path.join("config"), config).expect("writes");
        };
        there("0000:01:00.0", &[0xde, 0x10, 0xb8, 0x1e]);
        there("0000:02:00.0", &[0xff; 4]);
        there("0000:03:00.0", &[]);
        assert_eq!(on_bus(&root, "0000:01:00.0").expect("reads"), Some(true));
        assert_eq!(on_bus(&root, "0000:02:00.0").expect("reads"), Some(false));
        assert_eq!(on_bus(&root, "0000:04:00.0").expect("looks"), None);
        assert!(on_bus(&root, "0000:03:00.0").is_err());
    }
}
