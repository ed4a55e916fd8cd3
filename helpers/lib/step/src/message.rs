// SPDX-License-Identifier: MIT
//! The journal's ids of what matters in a run (MESSAGE_ID=, systemd.journal-fields(7)): `journalctl -x` explains
//! them from the catalog in units/nvidia-reload.catalog, and programs can wait for them. An id never gets another
//! meaning.

use libsystemd::logging::Priority;

/// What a message says, whatever its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A run began: preflight refused nothing and opened it.
    RunBegan,
    /// A run ended well.
    RunDone,
    /// A run was refused; nothing was touched.
    RunRefused,
    /// No run can help: only a reboot does; nothing was touched.
    RebootRequired,
    /// A step failed: the run is rolled back.
    StepFailed,
    /// A run failed, and everything is as it was before.
    RunRolledBack,
    /// A run was cancelled, or a drained or offline machine was ended, and everything is as it was before.
    RunCancelled,
    /// A run ended, and something is not restored.
    RunDegraded,
    /// The driver was loaded.
    DriverLoaded,
    /// One thing that a run took is not restored.
    NotRestored,
    /// A process was terminated or killed, and is not restarted.
    ProcessEnded,
}

impl Message {
    /// All of them.
    pub const ALL: [Message; 11] = [
        Message::RunBegan,
        Message::RunDone,
        Message::RunRefused,
        Message::RebootRequired,
        Message::StepFailed,
        Message::RunRolledBack,
        Message::RunCancelled,
        Message::RunDegraded,
        Message::DriverLoaded,
        Message::NotRestored,
        Message::ProcessEnded,
    ];

    /// The id, as MESSAGE_ID= has it.
    pub fn id(self) -> &'static str {
        match self {
            Message::RunBegan => "2297f97d35ad4ab4a297d3b6b997582c",
            Message::RunDone => "a58bec50a2894fee8e6f766d384b591a",
            Message::RunRefused => "38a1916718f34b8eabe090a1472a0bd0",
            Message::RebootRequired => "0ef8c2f0816d43e0854fab8d71298db9",
            Message::StepFailed => "144694ea11804a03983326a9af9e6bf9",
            Message::RunRolledBack => "5f8138fec40b43fe9c5701d0c7f2d314",
            Message::RunCancelled => "29589187946949439aab847b426c06d9",
            Message::RunDegraded => "02192299fc3d4f95bedbed8b84ec47d3",
            Message::DriverLoaded => "4411b8b0f28a4cd28935621441d50442",
            Message::NotRestored => "1ca5fce41cb44c1da497a14c61a78c8c",
            Message::ProcessEnded => "472a9c8da0814fc3abf3286e8d922364",
        }
    }

    pub(crate) fn priority(self) -> Priority {
        match self {
            Message::RunBegan
            | Message::RunDone
            | Message::RunRolledBack
            | Message::RunCancelled
            | Message::DriverLoaded => Priority::Notice,
            Message::ProcessEnded => Priority::Warning,
            Message::RunRefused
            | Message::RebootRequired
            | Message::StepFailed
            | Message::RunDegraded
            | Message::NotRestored => Priority::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../../../docs/runs.md");

    const CATALOG: &str = include_str!("../../../../units/nvidia-reload.catalog");

    /// The fields that the catalog's texts name as @FIELD@.
    const FIELDS: [&str; 5] = [
        "NVIDIA_RELOAD_RUN",
        "NVIDIA_RELOAD_STEP",
        "NVIDIA_RELOAD_OBJECT",
        "NVIDIA_RELOAD_VERSION",
        "MESSAGE",
    ];

    #[test]
    fn each_id_is_in_the_catalog_and_the_catalog_has_no_other() {
        let ours: BTreeSet<&str> = Message::ALL.into_iter().map(Message::id).collect();
        assert_eq!(ours.len(), Message::ALL.len(), "one id, one meaning");
        assert!(ours.iter().all(|id| id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit())));
        let listed: Vec<&str> = CATALOG.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), ours);
        assert_eq!(listed.len(), ours.len(), "each once");
        let in_page = PAGE
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| line.split('`').next());
        let in_page: BTreeSet<&str> = in_page.filter(|id| id.len() == 32).collect();
        assert_eq!(in_page, ours, "docs/runs.md");
    }

    #[test]
    fn each_entry_has_a_subject_and_a_text_and_names_only_fields_that_are_sent() {
        for entry in CATALOG.split("\n-- ").skip(1) {
            let (header, text) = entry.split_once("\n\n").expect("header and text");
            for field in ["Subject: ", "Defined-By: nvidia-reload", "Documentation: man:nvidia-reload(8)"] {
                assert!(header.lines().any(|line| line.starts_with(field)), "{field} is not in {header}");
            }
            assert!(text.trim().len() > 40, "{entry}");
            for (at, name) in entry.split('@').enumerate() {
                assert!(at % 2 == 0 || FIELDS.contains(&name), "{name} in {entry}");
            }
            assert!(entry.lines().all(|line| line.chars().count() <= 80), "{entry}");
        }
    }
}
