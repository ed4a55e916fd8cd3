// SPDX-License-Identifier: MIT
//! The names of containers, for the eyes: of the system's, from the files of their engines, which root can read.
//!
//! What a user's own Podman writes is that user's, and not read, and it is not asked: the name is in the command line
//! of the container's monitor, conmon, which runs as that user. It is that user's word, and says nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use as_user::is_container_name;
use holders::{Engine, Holder, Owner};
use serde::Deserialize;
use step::Root;

/// Where Docker keeps what it knows of a container.
const DOCKER: &str = "/var/lib/docker/containers";

/// Where Podman lists its containers.
const PODMAN: &str = "/var/lib/containers/storage/overlay-containers/containers.json";

/// The most that is read of a command line.
const LONGEST: u64 = 64 << 10;

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
    let of_users = |holder: &Holder| match &holder.owner {
        Owner::Container(container) => {
            container.uid.filter(|_| is_id(&container.id)).map(|uid| (uid, container.id.clone()))
        }
        _ => None,
    };
    let wanted: BTreeSet<(u32, String)> = holders.iter().filter_map(of_users).collect();
    if !wanted.is_empty() {
        for ((_, id), name) in monitored(root, &wanted) {
            // An id is a user's word, too: it takes no name from a container of the system.
            names.entry(id).or_insert(name);
        }
    }
    names
}

/// The names that monitors of users give to those containers.
fn monitored(root: &Root, wanted: &BTreeSet<(u32, String)>) -> BTreeMap<(u32, String), String> {
    let processes = fs::read_dir(root.path("/proc")).into_iter().flatten().flatten();
    let monitors = processes.filter_map(|process| monitor(&process.path()));
    monitors.filter(|(container, _)| wanted.contains(container)).collect()
}

/// The user of a monitor, the container's id, and its name.
fn monitor(process: &Path) -> Option<((u32, String), String)> {
    if fs::read(process.join("comm")).ok()? != b"conmon\n" {
        return None;
    }
    let status = fs::read_to_string(process.join("status")).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid = uids.split_ascii_whitespace().next()?.parse().ok()?;
    let mut line = Vec::new();
    File::open(process.join("cmdline")).ok()?.take(LONGEST).read_to_end(&mut line).ok()?;
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let (mut id, mut name) = (None, None);
    while let Some(word) = words.next() {
        match &*word {
            "-c" | "--cid" => id = words.next(),
            "-n" | "--name" => name = words.next(),
            _ => {}
        }
    }
    let name = name.filter(|name| is_container_name(name))?;
    Some(((uid, id?.into_owned()), name.into_owned()))
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

    #[test]
    fn the_name_of_a_users_container_is_in_its_monitors_command_line() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let process = |pid: u32, comm: &str, uid: u32, id: &str, name: &str| {
            let folder = format!("/proc/{pid}");
            golden::write(&root, &format!("{folder}/comm"), &format!("{comm}\n"));
            golden::write(
                &root,
                &format!("{folder}/status"),
                &format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
            );
            let line = format!("/usr/bin/conmon\0--api-version\01\0-c\0{id}\0-u\0{id}\0-n\0{name}\0");
            golden::write(&root, &format!("{folder}/cmdline"), &line);
        };
        process(10, "conmon", 1000, "4f2a", "train");
        // Another user's word, a program that is no monitor, and what is no name.
        process(11, "conmon", 1001, "4f2a", "forged");
        process(12, "sleep", 1000, "beef", "forged");
        process(13, "conmon", 1000, "cafe", "a\u{1b}[31mb");
        let wanted = [(1000, "4f2a"), (1000, "beef"), (1000, "cafe")].map(|(uid, id)| (uid, id.to_owned()));
        let found = monitored(&root, &wanted.clone().into());
        assert_eq!(found, BTreeMap::from([(wanted[0].clone(), "train".to_owned())]));
    }
}
