// SPDX-License-Identifier: MIT
//! The real module underneath: whether it is loaded, which, and whether it is still the same.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use nix::libc;

/// What the real library opens, and keeps open.
const CONTROL: &str = "/dev/nvidiactl";

/// The loaded driver.
#[derive(Debug)]
pub struct Driver {
    /// The loaded module's version.
    pub version: String,
    /// What tells one load of the module from the next.
    pub generation: u64,
    /// Keeps the module in use.
    _control: File,
}

impl Driver {
    /// Opens the driver; none where there is none.
    pub fn open() -> Option<Self> {
        let control = File::options().read(true).write(true).open(CONTROL).ok()?;
        let version = fs::read_to_string("/sys/module/nvidia/version").ok()?.trim().to_owned();
        Some(Self { version, generation: generation()?, _control: control })
    }
}

/// What tells one load of the module from the next; none while it is not loaded.
///
/// sysfs gives inode numbers in turn (kernfs, `idr_alloc_cyclic`): a directory that is made again has
/// another one. Its times would not do, they are those of the inode in memory.
pub fn generation() -> Option<u64> {
    fs::metadata("/sys/module/nvidia").ok().map(|metadata| metadata.ino())
}

/// PCI addresses of the devices bound to the driver, sorted.
pub fn bound() -> Vec<String> {
    let entries = fs::read_dir("/sys/bus/pci/drivers/nvidia").into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.contains(':') && name.contains('.'))
        .collect();
    found.sort();
    found
}

/// The version in the name of the file that this library was loaded from, as in
/// `libnvidia-ml.so.535.261.03`; none where its name has none.
pub fn own_version() -> Option<String> {
    let mut found = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: the address is one of this library's own, and `found` outlives the call.
    let name = unsafe {
        if libc::dladdr(own_version as *const libc::c_void, &mut found) == 0 || found.dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(found.dli_fname)
    };
    // The linker was asked for the name without a version, which is a link.
    let path = fs::canonicalize(name.to_str().ok()?).ok()?;
    let version = path.file_name()?.to_str()?.strip_prefix("libnvidia-ml.so.")?.to_owned();
    version.contains('.').then_some(version)
}

/// Whether this process has CAP_SYS_ADMIN.
pub fn is_administrator() -> bool {
    /// `CAP_SYS_ADMIN`, linux/capability.h.
    const SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .is_some_and(|bits| bits & (1 << SYS_ADMIN) != 0)
}
