//! One line to the journal, with fields to search by; to standard error where there is no journal.

use std::collections::HashMap;

use ledger::Step;
use libsystemd::logging;
pub use libsystemd::logging::Priority;

/// Writes `message` for `step` to the journal, with `fields` beside it.
///
/// Carries `NVIDIA_RELOAD_STEP`. Carries `OBJECT_SYSTEMD_UNIT` too: journald learns the unit of a
/// message from `/proc/PID/cgroup`, which is gone when a short-lived helper has ended before the
/// message is read, and `journalctl -u` looks at that field as well.
pub fn log(step: Step, priority: Priority, message: &str, fields: &[(&str, &str)]) {
    log_as(step.name(), &step.unit(), priority, message, fields);
}

/// The same for a helper that is no step of a run: its name and its unit.
pub fn log_as(name: &str, unit: &str, priority: Priority, message: &str, fields: &[(&str, &str)]) {
    if logging::connected_to_journal() {
        let mut all: HashMap<&str, &str> = fields.iter().copied().collect();
        all.insert("NVIDIA_RELOAD_STEP", name);
        all.insert("OBJECT_SYSTEMD_UNIT", unit);
        all.insert("SYSLOG_IDENTIFIER", name);
        if logging::journal_send(priority, message, all.into_iter()).is_ok() {
            return;
        }
    }
    eprintln!("{message}");
}
