// SPDX-License-Identifier: MIT
//! What must hold of the documents: links lead to something, files that they name are there, the README is short,
//! and each schema of the JSON is described.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::stages::checkout;

/// The schemas of files and of conversations between our own programs.
const INTERNAL: [&str; 8] =
    ["units", "initramfs", "containers", "put-back", "healed", "slot", "memory", "lease"];

/// The documents, as paths from the checkout.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in [".", "docs", "tests/golden"] {
        for entry in fs::read_dir(checkout().join(directory)).expect("lists") {
            let path = entry.expect("lists").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 14, "{found:?}");
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The targets of `[words](target)`; the words may have brackets in backticks.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split_once(')').map(|(target, _)| target))
}

/// The anchors of a page, as GitHub makes them from the headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(text).lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for document in documents() {
        let text = text(&document);
        for link in links(&prose(&text)).filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().expect("is in a directory").join(path),
            };
            assert!(target.exists(), "{}: {link} does not exist", document.display());
            if !anchor.is_empty() {
                let anchors = anchors(&self::text(&target));
                assert!(anchors.contains(anchor), "{}: {link}: no such heading", document.display());
            }
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn the_files_that_a_document_names_are_there() {
    const OURS: [&str; 8] =
        ["helpers/", "units/", "targets/", "tests/", "docs/", "packaging/", "dracut/", "debian/"];
    let mut count = 0;
    for document in documents() {
        let text = prose(&text(&document));
        for name in text.split('`').skip(1).step_by(2) {
            let is_ours = OURS.iter().any(|start| name.starts_with(start));
            if is_ours && !name.contains(['*', ' ', '{', '\n']) && !name.chars().any(char::is_uppercase) {
                assert!(checkout().join(name).exists(), "{}: {name} does not exist", document.display());
                count += 1;
            }
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn the_readme_is_short() {
    let lines = text(&checkout().join("README.md")).lines().count();
    assert!(lines <= 150, "{lines} lines");
}

#[test]
fn every_page_can_be_reached_from_the_readme() {
    let readme = text(&checkout().join("README.md"));
    for document in documents() {
        let path = document.strip_prefix(checkout()).expect("is below");
        let path = path.strip_prefix("./").unwrap_or(path).display().to_string();
        let is_reached =
            path == "README.md" || path.starts_with("tests/") || readme.contains(&format!("({path}"));
        assert!(is_reached, "README.md does not link {path}");
    }
}

#[test]
fn every_schema_is_described() {
    let page = text(&checkout().join("docs/json.md"));
    let mut found = BTreeSet::new();
    let mut directories = vec![checkout().join("helpers")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("lists") {
            let path = entry.expect("lists").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = text(&path);
                let constants =
                    text.lines().filter(|line| line.contains("const ") && line.contains("SCHEMA"));
                found.extend(constants.filter_map(|line| Some(line.split('"').nth(1)?.to_owned())));
            }
        }
    }
    assert!(found.len() > 15, "{found:?}");
    for schema in found {
        let name = schema.strip_prefix("nvidia-reload.").and_then(|name| name.split('/').next());
        let name = name.unwrap_or_else(|| panic!("{schema}: nvidia-reload.NAME/VERSION"));
        let is_described = page.contains(&format!("`{schema}`"));
        assert_ne!(is_described, INTERNAL.contains(&name), "docs/json.md, {schema}");
    }
}

#[test]
fn what_links_and_anchors_look_like() {
    let page = "# A `b` (c), d\n[x](y.md#z) ```\n[no](no)\n``` [`w`](v)";
    assert_eq!(links(&prose(page)).collect::<Vec<_>>(), ["y.md#z", "v"]);
    assert_eq!(anchors(page), ["a-b-c-d".to_owned()].into());
}
