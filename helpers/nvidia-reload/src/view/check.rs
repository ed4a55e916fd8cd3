// SPDX-License-Identifier: MIT
//! The one line of `check`, as each monitor has it.

use xid::Class;

use super::text::clean;
use crate::check::{Checked, Condition, Format};

/// node-problem-detector cuts what is longer (max_output_length).
const NPD: usize = 80;

/// A line of NHC's goes into the reason of a drained node.
const NHC: usize = 240;

/// The line for a monitor; NHC gets nothing for a healthy node.
pub fn line(checked: &Checked, format: Format) -> String {
    let in_words = || match checked.condition {
        Condition::Match => {
            format!("driver {} works", checked.driver.loaded.as_deref().unwrap_or("unknown"))
        }
        condition => format!("{}: {}", condition.words(), checked.why.join("; ")),
    };
    match format {
        Format::Nagios => nagios(checked),
        Format::Npd => cut(&clean(&in_words()), NPD) + "\n",
        Format::Nhc if checked.works() => String::new(),
        Format::Nhc => cut(&clean(&format!("NVIDIA {}", in_words())), NHC) + "\n",
    }
}

/// `text` in so many bytes.
fn cut(text: &str, most: usize) -> String {
    const MORE: &str = "...";
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most - MORE.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}{MORE}", &text[..end])
}

/// As the Monitoring Plugins' guidelines have it: status, text, figures.
fn nagios(checked: &Checked) -> String {
    let status = match checked.condition {
        Condition::Match => "OK",
        Condition::ReloadNeeded => "WARNING",
        Condition::NotInstalled | Condition::GpuFailed | Condition::ResetNeeded | Condition::RebootNeeded => {
            "CRITICAL"
        }
        Condition::Unknown => "UNKNOWN",
    };
    let mut text = match (&checked.driver.loaded, checked.condition) {
        (Some(loaded), Condition::Match) => format!("versions match, driver {loaded}"),
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
            nagios(&checked(Condition::Match, &[], Class::Info, &["a"])),
            "NVIDIA OK - versions match, driver 1.2 (not seen: a) | gpus=1 failed=0 reset=0 reboot=0\n"
        );
        assert_eq!(
            nagios(&checked(Condition::RebootNeeded, &["a|b", "c"], Class::Reboot, &[])),
            "NVIDIA CRITICAL - reboot needed: a/b; c | gpus=1 failed=0 reset=0 reboot=1\n"
        );
        assert!(
            nagios(&checked(Condition::ReloadNeeded, &["a"], Class::App, &[]))
                .starts_with("NVIDIA WARNING - reload")
        );
        assert!(
            nagios(&checked(Condition::Unknown, &["a"], Class::App, &[]))
                .starts_with("NVIDIA UNKNOWN - unknown: a")
        );
    }
    fn of(condition: Condition, why: &str, healed: Option<&str>) -> Checked {
        Checked {
            schema: SCHEMA,
            condition,
            why: vec![why.to_owned()],
            driver: Versions { loaded: Some("1.2".into()), on_disk: Some("1.3".into()) },
            library: None,
            healed: healed.map(str::to_owned),
            gpus: Vec::new(),
            unseen: Vec::new(),
        }
    }

    #[test]
    fn each_monitor_has_its_own_line_and_exit_status() {
        let mut page = String::new();
        for condition in Condition::ALL {
            let checked = of(condition, "1.2 is loaded, 1.3 is on disk", None);
            for format in [Format::Nagios, Format::Npd, Format::Nhc] {
                let exit = checked.exit(format);
                page.push_str(&format!("{format:?} {exit} {:?}\n", line(&checked, format)));
            }
        }
        let healed = of(Condition::ReloadNeeded, "healed: 1.2 in use, reload to 1.3 pending", Some("1.2"));
        page.push_str(&format!("healed Nhc {} {:?}\n", healed.exit(Format::Nhc), line(&healed, Format::Nhc)));
        page.push_str(&format!("healed Npd {} {:?}\n", healed.exit(Format::Npd), line(&healed, Format::Npd)));
        // Somebody loaded another driver by hand.
        let stale = of(Condition::ReloadNeeded, "programs find the libraries of 1.1", Some("1.1"));
        page.push_str(&format!("stale Nhc {}\n", stale.exit(Format::Nhc)));
        let fault = crate::fault::Fault::refused("cannot read /sys", "");
        let unknown = Checked::unknown(&fault);
        page.push_str(&format!(
            "fault Npd {} {:?}\n",
            unknown.exit(Format::Npd),
            line(&unknown, Format::Npd)
        ));
        insta::assert_snapshot!(page);
    }

    #[test]
    fn what_is_too_long_for_a_monitor_is_cut_at_a_character() {
        for length in 0..200 {
            let why = format!("{}é\x1b[2J\n{}", "a".repeat(length), "ü".repeat(100));
            let checked = of(Condition::GpuFailed, &why, None);
            for (format, most) in [(Format::Npd, NPD), (Format::Nhc, NHC)] {
                let line = line(&checked, format);
                let text = line.strip_suffix('\n').expect("is a line");
                assert!(text.len() <= most, "{length}: {text}");
                assert!(text.ends_with("...") || text.ends_with('ü'), "{length}: {text}");
                assert!(!text.contains(['\n', '\x1b']), "{text:?}");
            }
        }
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
        let line = nagios(&Checked::unknown(&fault));
        assert!(line.starts_with("NVIDIA UNKNOWN - ") && line.contains("/proc/modules"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }
}
