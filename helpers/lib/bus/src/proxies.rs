// SPDX-License-Identifier: MIT
//! The part of systemd's D-Bus interface that is used, as systemd's `org.freedesktop.systemd1(5)`
//! documents it.

use zbus::{OwnedObjectPath, OwnedVariant, Result, proxy};

/// A row of `ListUnitsByPatterns`: name, description, load state, active state, sub state,
/// followed unit, path, job id, job type, job path.
pub(crate) type UnitRow =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// A row of `ListJobs`: id, unit, type, state, job path, unit path.
pub(crate) type JobRow = (u32, String, String, String, OwnedObjectPath, OwnedObjectPath);

/// A row of `DumpUnitFileDescriptorStore`: name, mode, major and minor of the file system, inode,
/// major and minor of the device that it is, path, flags.
pub(crate) type StoredRow = (String, u32, u32, u32, u64, u32, u32, String, u32);

/// A row of `ListInhibitors`: what, who, why, mode, user, process.
pub(crate) type InhibitorRow = (String, String, String, String, u32, u32);

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(crate) trait Manager {
    fn subscribe(&self) -> Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> Result<()>;
    fn load_unit(&self, name: &str) -> Result<OwnedObjectPath>;
    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> Result<Vec<UnitRow>>;
    fn list_jobs(&self) -> Result<Vec<JobRow>>;
    fn dump_unit_file_descriptor_store(&self, name: &str) -> Result<Vec<StoredRow>>;
}

/// Properties are asked for one by one: `GetAll` would make PID 1 read control groups as well. And
/// not as properties of the proxies above, which would bring zbus' cache of them: what is read here
/// is what holds now.
#[proxy(interface = "org.freedesktop.DBus.Properties", default_service = "org.freedesktop.systemd1")]
pub(crate) trait Properties {
    fn get(&self, interface: &str, name: &str) -> Result<OwnedVariant>;
}

/// The part of logind's, as `org.freedesktop.login1(5)` documents it.
#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
pub(crate) trait Login {
    fn get_session(&self, id: &str) -> Result<OwnedObjectPath>;
    fn list_inhibitors(&self) -> Result<Vec<InhibitorRow>>;
}

#[proxy(interface = "org.freedesktop.login1.Session", default_service = "org.freedesktop.login1")]
pub(crate) trait Session {
    fn take_control(&self, force: bool) -> Result<()>;
    fn release_control(&self) -> Result<()>;
}
