// SPDX-License-Identifier: MIT
//! One line to the journal, with fields to search by; to standard error where there is no journal.

use std::collections::HashMap;

use ledger::Step;
use libsystemd::logging;
pub use libsystemd::logging::Priority;

use crate::{Message, text};

/// Writes `message` for `step` to the journal, with `fields` beside it.
///
/// Carries `NVIDIA_RELOAD_STEP`. Carries `OBJECT_SYSTEMD_UNIT` too: journald learns the unit of a
/// message from `/proc/PID/cgroup`, which is gone when a short-lived helper has ended before the
/// message is read, and `journalctl -u` looks at that field as well.
pub fn log(step: Step, priority: Priority, message: &str, fields: &[(&str, &str)]) {
    log_as(step.name(), &step.unit(), priority, message, fields);
}

/// Writes what `event` means for `step`, with its id and `fields` beside it.
pub fn log_event(step: Step, event: Message, message: &str, fields: &[(&str, &str)]) {
    let mut all = vec![("MESSAGE_ID", event.id())];
    all.extend(fields);
    log(step, event.priority(), message, &all);
}

/// The same for a helper that is no step of a run: its name and its unit.
pub fn log_as(name: &str, unit: &str, priority: Priority, message: &str, fields: &[(&str, &str)]) {
    let message = &text::line(message);
    if logging::connected_to_journal() {
        let fields: Vec<(&str, String)> =
            fields.iter().map(|(field, value)| (*field, text::line(value))).collect();
        let mut all: HashMap<&str, &str> =
            fields.iter().map(|(field, value)| (*field, value.as_str())).collect();
        all.insert("NVIDIA_RELOAD_STEP", name);
        all.insert("OBJECT_SYSTEMD_UNIT", unit);
        all.insert("SYSLOG_IDENTIFIER", name);
        if logging::journal_send(priority, message, all.into_iter()).is_ok() {
            return;
        }
    }
    eprintln!("{message}");
}

/// Says `text` on standard error, where a step has its journal: for what deserves a line and is no error.
pub fn say(text: &str) {
    eprintln!("{}", text::line(text));
}
