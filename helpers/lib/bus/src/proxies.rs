//! The part of systemd's D-Bus interface that is used, as systemd's `org.freedesktop.systemd1(5)`
//! documents it.

use zbus::{OwnedObjectPath, Result, proxy};

/// A row of `ListUnitsByPatterns`: name, description, load state, active state, sub state,
/// followed unit, path, job id, job type, job path.
pub(crate) type UnitRow =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// A row of `ListJobs`: id, unit, type, state, job path, unit path.
pub(crate) type JobRow = (u32, String, String, String, OwnedObjectPath, OwnedObjectPath);

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(crate) trait Manager {
    fn subscribe(&self) -> Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> Result<OwnedObjectPath>;
    fn load_unit(&self, name: &str) -> Result<OwnedObjectPath>;
    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> Result<Vec<UnitRow>>;
    fn list_jobs(&self) -> Result<Vec<JobRow>>;

    #[zbus(property)]
    fn system_state(&self) -> Result<String>;
}

#[proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
pub(crate) trait Unit {
    #[zbus(property)]
    fn id(&self) -> Result<String>;
    #[zbus(property)]
    fn load_state(&self) -> Result<String>;
    #[zbus(property)]
    fn active_state(&self) -> Result<String>;
    #[zbus(property)]
    fn sub_state(&self) -> Result<String>;
    #[zbus(property)]
    fn job(&self) -> Result<(u32, OwnedObjectPath)>;
    #[zbus(property)]
    fn fragment_path(&self) -> Result<String>;
    #[zbus(property)]
    fn assert_result(&self) -> Result<bool>;
    #[zbus(property)]
    fn required_by(&self) -> Result<Vec<String>>;
    #[zbus(property)]
    fn requisite_of(&self) -> Result<Vec<String>>;
    #[zbus(property)]
    fn bound_by(&self) -> Result<Vec<String>>;
    #[zbus(property)]
    fn consists_of(&self) -> Result<Vec<String>>;
    #[zbus(property)]
    fn triggered_by(&self) -> Result<Vec<String>>;
}

#[proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
pub(crate) trait Service {
    #[zbus(property)]
    fn result(&self) -> Result<String>;
    #[zbus(property)]
    fn status_text(&self) -> Result<String>;
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> Result<u32>;
    #[zbus(property)]
    fn exec_main_start_timestamp_monotonic(&self) -> Result<u64>;
    #[zbus(property)]
    fn exec_main_exit_timestamp_monotonic(&self) -> Result<u64>;
    #[zbus(property)]
    fn exec_main_code(&self) -> Result<i32>;
    #[zbus(property)]
    fn exec_main_status(&self) -> Result<i32>;
}
