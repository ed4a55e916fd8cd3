// SPDX-License-Identifier: MIT
//! The same as `check`, for Prometheus: a file for the node exporter's textfile directory.

use std::path::Path;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use step::Exit;

use crate::check::{Checked, Condition};
use crate::fault::{Fault, Result};
use crate::view::text::clean;

type Labels = Vec<(&'static str, String)>;

/// `checked` in Prometheus' text format.
pub fn text(checked: &Checked) -> String {
    let mut registry = Registry::with_prefix("nvidia_reload");
    let mut family = |name: &str, help: &str, rows: Vec<(Labels, i64)>| {
        let family = Family::<Labels, Gauge>::default();
        for (mut labels, value) in rows {
            for (_, text) in &mut labels {
                *text = escaped(text);
            }
            family.get_or_create(&labels).set(value);
        }
        registry.register(name, help, family);
    };
    let condition = |condition: Condition| {
        (vec![("condition", condition.key().to_owned())], i64::from(condition == checked.condition))
    };
    family(
        "condition",
        "What the driver needs: 1 for the one that holds",
        Condition::ALL.into_iter().map(condition).collect(),
    );
    let version = |version: &Option<String>| version.clone().unwrap_or_default();
    let versions = vec![
        ("loaded", version(&checked.driver.loaded)),
        ("on_disk", version(&checked.driver.on_disk)),
        ("library", version(&checked.library)),
    ];
    family("driver_info", "The driver's versions; empty for none", vec![(versions, 1)]);
    let healed = checked.healed.iter().map(|version| (vec![("version", version.clone())], 1));
    family(
        "healed",
        "The driver whose libraries are found before those on disk, until the reload",
        healed.collect(),
    );
    let gpus = checked.gpus.iter().map(|gpu| {
        (vec![("pci", gpu.pci.clone().unwrap_or_default()), ("class", gpu.class.name().to_owned())], 1)
    });
    family("gpu_class", "What each GPU needs, as `nvidia-reload explain` has it", gpus.collect());
    let unseen = Gauge::<i64>::default();
    unseen.set(i64::try_from(checked.unseen.len()).unwrap_or(i64::MAX));
    registry.register("unseen", "Sources that could not be looked at", unseen);
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    sorted(&text)
}

/// The samples of each family in order: the library has them in another one each time, and whoever compares two
/// files sees a change where there is none.
fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.chunk_by_mut(|one, next| one.starts_with('#') == next.starts_with('#')).for_each(|block| {
        if block.first().is_some_and(|line| !line.starts_with('#')) {
            block.sort_unstable();
        }
    });
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A label's value as Prometheus reads it: the library writes it as it is, and a quotation mark or a line end in a
/// version would make another metric of the rest.
fn escaped(text: &str) -> String {
    clean(text).replace('\\', "\\\\").replace('"', "\\\"")
}

/// Puts `text` into `path` in one go: whoever reads it finds the old one or the new one.
///
/// # Errors
/// It cannot be written there.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let fault = |error: &dyn std::error::Error| {
        Fault::new(
            Exit::Failed,
            format!("cannot write {}", path.display()),
            "is it a file in a folder that is there and writable?",
        )
        .because(error)
    };
    files::replace(path, 0o644, text.as_bytes()).map_err(|error| fault(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::SCHEMA;
    use crate::gpus::Need;
    use std::fs;
    use step::Versions;

    #[test]
    fn a_machine_that_needs_a_reload() {
        let checked = Checked {
            schema: SCHEMA,
            condition: Condition::ReloadNeeded,
            why: vec!["1 is loaded, 2 is on disk".into()],
            driver: Versions { loaded: Some("1".into()), on_disk: Some("2".into()) },
            library: Some("2".into()),
            healed: Some("1".into()),
            gpus: vec![Need { pci: Some("0000:3b:00".into()), class: xid::Class::Info, why: Vec::new() }],
            unseen: Vec::new(),
        };
        let text = text(&checked);
        for line in [
            "nvidia_reload_condition{condition=\"reload-needed\"} 1",
            "nvidia_reload_condition{condition=\"reboot-needed\"} 0",
            "nvidia_reload_driver_info{loaded=\"1\",on_disk=\"2\",library=\"2\"} 1",
            "nvidia_reload_gpu_class{pci=\"0000:3b:00\",class=\"info\"} 1",
            "nvidia_reload_healed{version=\"1\"} 1",
            "nvidia_reload_unseen 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_same_state_has_the_same_text() {
        let checked = Checked {
            schema: SCHEMA,
            condition: Condition::InStep,
            why: Vec::new(),
            driver: Versions::default(),
            library: None,
            healed: None,
            gpus: (0..8u8)
                .map(|bus| Need {
                    pci: Some(format!("0000:{bus:02x}:00.0")),
                    class: xid::Class::Info,
                    why: Vec::new(),
                })
                .collect(),
            unseen: Vec::new(),
        };
        let first = text(&checked);
        assert!((0..20).all(|_| text(&checked) == first));
        let gpus: Vec<&str> =
            first.lines().filter(|line| line.starts_with("nvidia_reload_gpu_class{")).collect();
        assert!(gpus.is_sorted() && gpus.len() == 8, "{first}");
        assert!(first.ends_with("# EOF\n"), "{first}");
    }

    #[test]
    fn a_label_is_one_label_whatever_is_in_it() {
        let long = "9".repeat(100_000);
        let odd = format!("5\"}} 1\nforged 1\n\x1b[2J\\{long}");
        let checked = Checked {
            schema: SCHEMA,
            condition: Condition::ReloadNeeded,
            why: Vec::new(),
            driver: Versions { loaded: Some(odd), on_disk: Some(String::from_utf8_lossy(b"\xff").into()) },
            healed: None,
            library: None,
            gpus: Vec::new(),
            unseen: Vec::new(),
        };
        let text = text(&checked);
        assert!(
            !text.lines().any(|line| line.starts_with("forged")) && !text.contains('\x1b'),
            "{text:.400}"
        );
        // Backslashes of the escapes are escaped themselves: Prometheus knows three escapes and no others.
        let value = format!(
            r#"{{loaded="5\"}} 1\\nforged 1\\n\\x1b[2J\\{long}",on_disk="{}",library=""}} 1"#,
            '\u{fffd}'
        );
        assert!(text.contains(&value), "{text:.400}");
    }

    #[test]
    fn a_file_is_replaced_and_a_folder_that_is_missing_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("nvidia.prom");
        write(&path, "a\n").expect("writes");
        write(&path, "b\n").expect("writes again");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "b\n");
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 1);
        let fault = write(Path::new("/no/such/folder/x.prom"), "").expect_err("must fail");
        assert!(fault.error.contains("/no/such/folder/x.prom"));
    }
}
