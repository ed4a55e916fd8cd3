// SPDX-License-Identifier: MIT
//! The configuration's keys in the shipped file and in docs/configuration.md: all of them, with the defaults that
//! the program has, and no others.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use toml::{Table, Value};

use super::{Config, LockedClocks};

const CLOCKS: Option<(u32, u32)> = Some((1, 2));

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Keys with their dots, and values.
fn flat(table: &Table) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(table) => {
                let key = if key.starts_with("GPU-") { "UUID" } else { key };
                keys.extend(flat(table).into_iter().map(|(below, value)| (format!("{key}.{below}"), value)));
            }
            value => {
                keys.insert(key.clone(), value.clone());
            }
        }
    }
    keys
}

/// All keys that the program knows.
fn known() -> BTreeMap<String, Value> {
    let mut config = Config::default();
    config.gpus.locked_gpu_clocks = CLOCKS;
    config.gpus.locked_memory_clocks = CLOCKS;
    let both = LockedClocks { locked_gpu_clocks: CLOCKS, locked_memory_clocks: CLOCKS };
    config.gpus.by_uuid.insert("GPU-0".into(), both);
    flat(&Table::try_from(config).expect("encodes"))
}

/// Whether the key has no default of its own.
fn has_no_default(key: &str) -> bool {
    key.contains("-clocks")
}

#[test]
fn the_shipped_file_has_the_programs_defaults() {
    let shipped: Config = toml::from_str(&read("units/config.toml")).expect("is read");
    assert_eq!(shipped, Config::default());
}

#[test]
fn the_shipped_file_explains_every_key() {
    // Its examples are comments without a blank.
    let text: String = read("units/config.toml")
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(example)
                if example.starts_with(|first: char| first == '[' || first.is_ascii_lowercase()) =>
            {
                format!("{example}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let explained = flat(&toml::from_str(&text).expect("is read"));
    for key in known().keys().filter(|key| *key != "gpus.by-uuid.UUID.locked-memory-clocks") {
        assert!(explained.contains_key(key), "units/config.toml does not explain {key}");
    }
}

#[test]
fn the_page_has_every_key_and_its_default() {
    let page = read("docs/configuration.md");
    let mut rows = BTreeMap::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (key, rest) = row.split_once('`').expect("a key ends");
        let default = rest.split('|').nth(1).unwrap_or_default().trim().trim_matches('`');
        assert_eq!(rows.insert(key.to_owned(), default.to_owned()), None, "{key} is there twice");
    }
    let known = known();
    assert_eq!(rows.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>(), "on the left the page");
    for (key, value) in known {
        let expected = match value {
            _ if has_no_default(&key) => "not set".to_owned(),
            _ if key == "upgrade.restartable" => "NVIDIA's services".to_owned(),
            value => value.to_string(),
        };
        assert_eq!(rows[&key], expected, "{key}");
    }
}
