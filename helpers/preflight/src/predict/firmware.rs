// SPDX-License-Identifier: MIT
//! Whether the firmware is there that the driver asks for: without it no GPU starts under the open modules.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use step::Root;

use super::{Found, driver};
use crate::findings::Findings;

/// How the kernel may have it packed (CONFIG_FW_LOADER_COMPRESS_*).
const SUFFIXES: [&str; 3] = ["", ".zst", ".xz"];

/// Looks for the driver's firmware.
///
/// # Errors
/// The kernel's own word on where firmware is cannot be read.
pub(crate) fn assess(root: &Root, found: &[Found], release: &str, findings: &mut Findings) -> Result<()> {
    let Some(driver) = driver(found) else { return Ok(()) };
    let directories = directories(root, release)?;
    let is_there = |name: &&String| {
        let mut paths = directories.iter().flat_map(|directory| {
            SUFFIXES.iter().map(move |suffix| directory.join(format!("{name}{suffix}")))
        });
        // An empty file is none to the kernel.
        paths.any(|path| fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0))
    };
    let named = &driver.declared.firmware;
    let missing: Vec<&String> = named.iter().filter(|name| !is_there(name)).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let path = driver.file.path.display();
    let remedy = format!(
        "install the driver's firmware of version {}: it belongs below {}",
        driver.file.version.as_deref().unwrap_or("that the modules are of"),
        directories.last().map(|directory| directory.display().to_string()).unwrap_or_default()
    );
    if missing.len() < named.len() {
        findings.warn(
            format!("{path} names the firmware {first}, which is not there: some GPUs may need it"),
            remedy,
        );
    } else if is_open(driver) {
        findings.refuse(
            format!("the firmware {first} is not there, and without it {path} starts no GPU"),
            remedy,
        );
    } else {
        // The proprietary modules can do without on the GPUs before Hopper, depending on GPU and version.
        findings.warn(
            format!("{path} names the firmware {first}, which is not there: most GPUs need it"),
            remedy,
        );
    }
    Ok(())
}

/// Whether these are the open modules: those are licensed for use beside the kernel's own.
pub(crate) fn is_open(driver: &Found) -> bool {
    driver.declared.license.as_deref() == Some("Dual MIT/GPL")
}

/// Where the kernel looks for firmware, in its order (drivers/base/firmware_loader/main.c).
fn directories(root: &Root, release: &str) -> Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    let parameter = root.path("/sys/module/firmware_class/parameters/path");
    let custom = match fs::read_to_string(&parameter) {
        Ok(custom) => custom,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", parameter.display())),
    };
    let custom = custom.trim_end_matches('\n');
    if !custom.is_empty() {
        directories.push(root.path(custom));
    }
    for directory in [&format!("updates/{release}"), "updates", release] {
        directories.push(root.path("/lib/firmware").join(directory));
    }
    directories.push(root.path("/lib/firmware"));
    Ok(directories)
}
