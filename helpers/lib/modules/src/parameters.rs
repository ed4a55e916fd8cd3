// SPDX-License-Identifier: MIT
//! The parameters of loaded modules, and what a reload made of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use graph::{attribute, names};
use step::Root;

use crate::DRIVER;

/// Most of the driver's own parameters are not in sysfs but here, as `EnableMSI: 1` for `NVreg_EnableMSI`.
const DRIVERS: &str = "/proc/driver/nvidia/params";

/// The parameters of the loaded module `name` and their values, as far as they can be read.
///
/// # Errors
/// `/sys/module/NAME/parameters`, or what the driver tells of itself, cannot be read.
pub fn parameters(root: &Root, name: &str) -> Result<BTreeMap<String, String>> {
    let directory = root.path("/sys/module").join(name).join("parameters");
    let mut found = BTreeMap::new();
    for parameter in names(&directory)? {
        match attribute(&directory.join(&parameter)) {
            Ok(Some(value)) => {
                found.insert(parameter, value);
            }
            Ok(None) => {}
            // Write-only parameters, and those that only root may read.
            Err(graph::Error::Read { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error.into()),
        }
    }
    if name == DRIVER {
        let path = root.path(DRIVERS);
        match fs::read_to_string(&path) {
            Ok(text) => found.extend(of_driver(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    Ok(found)
}

fn of_driver(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| line.split_once(": ")).map(|(name, value)| {
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        (format!("NVreg_{name}"), value.to_owned())
    })
}

/// A parameter that has another value than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The module's name.
    pub module: String,
    /// The parameter's.
    pub parameter: String,
    /// Its value before.
    pub was: String,
    /// Its value now.
    pub is: String,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the parameter {} of {} was {:?}, and is {:?}",
            self.parameter, self.module, self.was, self.is
        )
    }
}

/// The parameters that modules have now with another value than in `before`. A new driver may have other
/// parameters: what only one of the two has is not compared.
///
/// # Errors
/// As [`parameters`].
pub fn changed_parameters(root: &Root, before: &[ledger::Module]) -> Result<Vec<Changed>> {
    let mut changed = Vec::new();
    for module in before {
        let mut now = parameters(root, &module.name)?;
        for (parameter, was) in &module.parameters {
            if let Some(is) = now.remove(parameter).filter(|is| is != was) {
                let (module, parameter, was) = (module.name.clone(), parameter.clone(), was.clone());
                changed.push(Changed { module, parameter, was, is });
            }
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let write = |path: &str, text: &str| golden::write(&root, path, text);
        write("/sys/module/nvidia/parameters/rm_firmware_active", "all\n");
        write(DRIVERS, "EnableMSI: 1\nRegistryDwords: \"a=1\"\njunk\n");
        let parameters = parameters(&root, DRIVER).expect("reads");
        let all = [("NVreg_EnableMSI", "1"), ("NVreg_RegistryDwords", "a=1"), ("rm_firmware_active", "all")];
        assert_eq!(parameters, BTreeMap::from(all.map(|(a, b)| (a.to_owned(), b.to_owned()))));
        let before = [ledger::Module { name: DRIVER.into(), version: None, srcversion: None, parameters }];
        assert_eq!(changed_parameters(&root, &before).expect("reads"), []);
        write(DRIVERS, "EnableMSI: 0\nNew: 1\n");
        let changed = changed_parameters(&root, &before).expect("reads");
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].to_string(), "the parameter NVreg_EnableMSI of nvidia was \"1\", and is \"0\"");
    }
}
