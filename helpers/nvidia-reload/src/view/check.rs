// SPDX-License-Identifier: MIT
//! The one line of `check`, as the Monitoring Plugins' guidelines have it: status, text, figures.

use xid::Class;

use super::text::clean;
use crate::check::{Checked, Condition};
use crate::fault::Fault;

/// The line.
pub fn line(checked: &Checked) -> String {
    let status = match checked.condition {
        Condition::InStep => "OK",
        Condition::ReloadNeeded => "WARNING",
        Condition::NotInstalled | Condition::GpuFailed | Condition::ResetNeeded | Condition::RebootNeeded => {
            "CRITICAL"
        }
        Condition::Unknown => "UNKNOWN",
    };
    let mut text = match (&checked.driver.loaded, checked.condition) {
        (Some(loaded), Condition::InStep) => format!("in step, driver {loaded}"),
        (_, condition) => format!("{}: {}", condition.words(), checked.why.join("; ")),
    };
    if !checked.unseen.is_empty() {
        text.push_str(&format!(" (not seen: {})", checked.unseen.join("; ")));
    }
    let of = |class: Class| checked.gpus.iter().filter(|gpu| gpu.class == class).count();
    // What follows the bar is figures to a monitor.
    format!(
        "NVIDIA {status} - {} | gpus={} failed={} reset={} reboot={}\n",
        clean(&text).replace('|', "/"),
        checked.gpus.len(),
        of(Class::Failed),
        of(Class::Reset),
        of(Class::Reboot)
    )
}

/// The line where nothing could be found out.
pub fn unknown(fault: &Fault) -> String {
    let mut text = fault.error.clone();
    fault.causes.iter().for_each(|cause| text.push_str(&format!(": {cause}")));
    format!("NVIDIA UNKNOWN - {}\n", clean(&text).replace('|', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::SCHEMA;
    use crate::gpus::Need;
    use step::Versions;

    #[test]
    fn each_condition_has_its_line() {
        let checked = |condition, why: &[&str], class, unseen: &[&str]| Checked {
            schema: SCHEMA,
            condition,
            why: why.iter().map(|&why| why.to_owned()).collect(),
            driver: Versions { loaded: Some("1.2".into()), on_disk: Some("1.2".into()) },
            library: None,
            healed: None,
            gpus: vec![Need { pci: Some("0000:3b:00".into()), class, why: Vec::new() }],
            unseen: unseen.iter().map(|&what| what.to_owned()).collect(),
        };
        assert_eq!(
            line(&checked(Condition::InStep, &[], Class::Info, &["a"])),
            "NVIDIA OK - in step, driver 1.2 (not seen: a) | gpus=1 failed=0 reset=0 reboot=0\n"
        );
        assert_eq!(
            line(&checked(Condition::RebootNeeded, &["a|b", "c"], Class::Reboot, &[])),
            "NVIDIA CRITICAL - reboot needed: a/b; c | gpus=1 failed=0 reset=0 reboot=1\n"
        );
        assert!(
            line(&checked(Condition::ReloadNeeded, &["a"], Class::App, &[]))
                .starts_with("NVIDIA WARNING - reload")
        );
        assert!(
            line(&checked(Condition::Unknown, &["a"], Class::App, &[]))
                .starts_with("NVIDIA UNKNOWN - unknown: a")
        );
    }

    #[test]
    fn what_cannot_be_found_out_has_its_line_too() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = step::Root::at(directory.path());
        // The driver is there, and /proc/modules is not.
        let module = root.path("/sys/module/nvidia");
        std::fs::create_dir_all(module.join("holders")).expect("creates");
        for (file, text) in [("initstate", "live\n"), ("refcnt", "0\n"), ("version", "1\n")] {
            std::fs::write(module.join(file), text).expect("writes");
        }
        let fault = crate::check::check(&root).expect_err("cannot be found out");
        let line = unknown(&fault);
        assert!(line.starts_with("NVIDIA UNKNOWN - ") && line.contains("/proc/modules"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }
}
