// SPDX-License-Identifier: MIT
//! The names of the system's containers, for the eyes: from the files of their engines, which root can read.
//!
//! What a user's own Podman writes is that user's, and not read; its containers keep their ids.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;

use holders::{Engine, Holder, Owner};
use serde::Deserialize;
use step::Root;

/// Where Docker keeps what it knows of a container.
const DOCKER: &str = "/var/lib/docker/containers";

/// Where Podman lists its containers.
const PODMAN: &str = "/var/lib/containers/storage/overlay-containers/containers.json";

/// The most that is read of a file.
const MOST: u64 = 16 << 20;

/// The names of the containers that `holders` are in, by id. What has no name here has none to show.
pub fn of(root: &Root, holders: &[Holder]) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut podman = None;
    for holder in holders {
        let Owner::Container(container) = &holder.owner else { continue };
        if container.uid.is_some() || !is_id(&container.id) || names.contains_key(&container.id) {
            continue;
        }
        let name = match container.engine {
            Engine::Docker => docker(root, &container.id),
            Engine::Podman => podman.get_or_insert_with(|| self::podman(root)).get(&container.id).cloned(),
            _ => None,
        };
        names.extend(name.map(|name| (container.id.clone(), name)));
    }
    names
}

/// Whether it may be a part of a path.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn docker(root: &Root, id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "Name")]
        name: String,
    }
    let config: Config = read(root, &format!("{DOCKER}/{id}/config.v2.json"))?;
    Some(config.name.trim_start_matches('/').to_owned())
}

fn podman(root: &Root) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let listed: Vec<Listed> = read(root, PODMAN).unwrap_or_default();
    listed.into_iter().filter_map(|listed| Some((listed.id, listed.names.into_iter().next()?))).collect()
}

fn read<T: serde::de::DeserializeOwned>(root: &Root, path: &str) -> Option<T> {
    let path = root.path(path);
    let data = fs::symlink_metadata(&path).ok()?;
    if !data.is_file() || data.len() > MOST {
        return None;
    }
    let mut text = Vec::new();
    File::open(path).ok()?.take(MOST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_and_podman_have_names_on_disk() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let folder = root.path(DOCKER).join("4f2a");
        fs::create_dir_all(&folder).expect("creates");
        fs::write(folder.join("config.v2.json"), r#"{"ID":"4f2a","Name":"/train","Config":{}}"#)
            .expect("writes");
        assert_eq!(docker(&root, "4f2a").as_deref(), Some("train"));
        assert_eq!(docker(&root, "beef"), None);
        let list = root.path(PODMAN);
        fs::create_dir_all(list.parent().expect("has one")).expect("creates");
        fs::write(list, r#"[{"id":"0123","names":["serve"],"layer":"x"},{"id":"4567"}]"#).expect("writes");
        assert_eq!(podman(&root), BTreeMap::from([("0123".to_owned(), "serve".to_owned())]));
        assert!(is_id("4f2a") && !is_id("../etc") && !is_id(""));
    }
}
