// SPDX-License-Identifier: MIT
//! The Xids that are known.

use std::sync::OnceLock;

use crate::Class;

const DATA: &str = include_str!("../data/xid.tsv");

/// The title of codes that drivers do not raise any more; a few still do.
pub const UNUSED: &str = "Unused";

/// The Xid that carries the driver's own verdict: what it means is in the message.
pub const RECOVERY_ACTION_CHANGED: u32 = 154;

/// A code and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The code.
    pub code: u32,
    /// NVIDIA's name for it. The names drift between its catalogue and its source.
    pub mnemonic: &'static str,
    /// What it is, in NVIDIA's words.
    pub title: &'static str,
    /// NVIDIA's immediate action, as its catalogue names it; empty where it has none.
    pub action: &'static str,
    /// What it means for a reload.
    pub class: Class,
    /// What else is to be known; may be empty.
    pub remark: &'static str,
}

impl Entry {
    /// What this tool does about it.
    pub fn what_we_do(&self) -> &'static str {
        match self.code {
            RECOVERY_ACTION_CHANGED => {
                "the action in the message decides: none lets a reload go on, a reset or a reboot refuses it"
            }
            _ => self.class.what_we_do(),
        }
    }
}

/// All of them, by code.
pub fn entries() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| rows(DATA).filter_map(|row| entry_of(&row)).collect())
}

/// One of them.
pub fn entry(code: u32) -> Option<&'static Entry> {
    let entries = entries();
    entries.binary_search_by_key(&code, |entry| entry.code).ok().map(|at| &entries[at])
}

fn entry_of(row: &[&'static str]) -> Option<Entry> {
    let [code, mnemonic, title, action, class, remark] = *row else { return None };
    Some(Entry { code: code.parse().ok()?, mnemonic, title, action, class: Class::named(class)?, remark })
}

/// The rows of a table of this crate: `#` begins a comment, a tab ends a cell.
pub(crate) fn rows(data: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    data.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

/// The name of an `NVML_GPU_RECOVERY_ACTION_*`. The driver's own words for them change from version to
/// version.
pub fn recovery_action(action: u32) -> &'static str {
    match action {
        0 => "none",
        1 => "GPU reset",
        2 => "node reboot",
        3 => "drain P2P",
        4 => "drain and reset",
        5 => "recover the IMEX domain",
        6 => "bus reset",
        7 => "system reboot",
        _ => "an action that is newer than this tool",
    }
}

/// NVIDIA's action in words.
pub fn action_in_words(action: &str) -> &'static str {
    match action {
        "IGNORE" => "nothing has to be done",
        "RESTART_APP" => "restart the application",
        "RESET_GPU" => "reset the GPU",
        "RESTART_BM" => "restart the machine",
        "RESTART_VM" => "restart the virtual machine",
        "CONTACT_SUPPORT" => "contact support",
        "CHECK_MECHANICALS" => "check the power cables and how the board sits",
        "UPDATE_SWFW" => "update the software and the firmware",
        "CHECK_UVM" => "reset the GPU if CUDA or a vGPU uses it, else nothing",
        "WORKFLOW_XID_45" => "follow the Xid reported with it; if there is none, restart the application",
        "WORKFLOW_XID_48" => {
            "with Xid 63 or 64 drain the GPU and reset it, else restart the application and reset the GPU when convenient"
        }
        "WORKFLOW_NVLINK_ERR" => {
            "decode the registers in the message; reset the GPU, report it if it occurs again"
        }
        "WORKFLOW_NVLINK5_ERR" => "decode the unit and status in the message",
        "XID_154" => "follow the message",
        "XID_154_EVAL" => "follow the Xid 154 reported with it; if there is none, restart the application",
        _ => "its catalogue names none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_and_every_code_is_there() {
        assert_eq!(entries().len(), rows(DATA).count());
        let codes: Vec<u32> = entries().iter().map(|entry| entry.code).collect();
        assert_eq!(codes, (1..=176).collect::<Vec<u32>>());
        assert!(entries().iter().all(|entry| !entry.title.is_empty() && !entry.mnemonic.is_empty()));
    }

    #[test]
    fn every_action_has_its_words() {
        for entry in entries().iter().filter(|entry| !entry.action.is_empty()) {
            assert_ne!(action_in_words(entry.action), action_in_words(""), "{}", entry.action);
        }
    }

    #[test]
    fn the_class_follows_the_action_except_where_the_table_says_why() {
        for entry in entries() {
            let usual = match entry.action {
                "IGNORE" => Class::Info,
                "RESTART_APP" => Class::App,
                "RESET_GPU" => Class::Reset,
                "RESTART_BM" | "RESTART_VM" => Class::Reboot,
                "CONTACT_SUPPORT" | "CHECK_MECHANICALS" | "UPDATE_SWFW" => Class::Support,
                _ => continue,
            };
            // Only a cold reset clears it, says the driver's source.
            let expected = if entry.code == 110 { Class::Reboot } else { usual };
            assert_eq!(entry.class, expected, "{}", entry.code);
        }
    }

    #[test]
    fn what_older_tables_had_wrong() {
        let class = |code| entry(code).map(|entry| entry.class);
        assert_eq!(
            [62, 64, 109, 119, 120, 136, 140, 143, 155, 156, 158, 159, 168, 175].map(class),
            [Some(Class::Reset); 14]
        );
        assert_eq!([79, 110, 151].map(class), [Some(Class::Reboot); 3]);
        assert_eq!([43, 63].map(class), [Some(Class::Info); 2]);
        assert_eq!(class(163), Some(Class::Reload));
        assert_eq!([54, 61, 78, 142].map(class), [Some(Class::Support); 4]);
        assert_eq!([0, 177, 999].map(class), [None; 3]);
    }
}
