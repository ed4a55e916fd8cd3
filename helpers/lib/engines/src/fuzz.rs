// SPDX-License-Identifier: MIT
//! What engines answer, what lies in bundles, and what processes call themselves. See the crate `fuzz`.

use std::fs;

use step::Root;

use crate::bundle::Bundle;
use crate::clients::Clients;
use crate::ids::Ids;
use crate::numbers::{Found, Host, Number};
use crate::running::{DOCKERS, Running, texts_of};
use crate::select::{Evidence, Runtime, why};
use crate::{Definition, Engine, Inspect, Kind, Owner, Presence, owner, user};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A host with one GPU.
struct Fixture;

impl Host for Fixture {
    fn class(&self, (major, _): Number) -> Option<String> {
        (major == 195).then(|| "nvidia".into())
    }

    fn at(&self, path: &str) -> Found {
        match path {
            "/dev/nvidia0" | "/dev" => Found::Devices(vec![("/dev/nvidia0".into(), (195, 0))]),
            _ => Found::Missing,
        }
    }
}

#[test]
fn inspect() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let of = |user| Engine { kind: Kind::Podman, user, socket: "/s".into(), presence: Presence::Ready };
    fuzz::run(HERE, "inspect", |text| {
        if let Ok(value) = serde_json::from_slice(text)
            && let Ok(definition) = Definition::of(&value)
        {
            let stored = serde_json::to_vec(&definition).expect("is encoded");
            assert_eq!(serde_json::from_slice::<Definition>(&stored).expect("is read"), definition);
        }
        let Ok(container) = serde_json::from_slice::<Inspect>(text) else { return };
        let bound = 16 * text.len() + 512;
        let reasons =
            why(&container, &Fixture, Evidence { runtime: Runtime::Usual("nvidia"), ..Evidence::default() });
        fuzz::assert_at_most(bound, &reasons);
        fuzz::assert_at_most(bound, &[container.needs(), container.aliases()]);
        let (_, _, _) = (container.phase(), container.health(), container.finished_usec());
        assert!(container.pid().is_none_or(|pid| pid > 0));
        // A user's word makes no owner but a unit of that user's manager, by its name.
        match owner::of(&root, &of(Some(7)), &container, &Clients::default()) {
            Owner::Unit { unit } => assert!(as_user::is_unit_name(&unit), "{unit:?}"),
            Owner::Engine | Owner::Compose { .. } => {}
            other => panic!("{other:?}"),
        }
        if let Ok(checked) = user::checked(&root, 7, ID, container) {
            assert!(checked.id() == ID && as_user::is_container_name(checked.name()));
            assert_eq!(checked.pid(), None, "no process there is a user's");
            let config = checked.config.unwrap_or_default();
            let texts = config.labels.iter().flatten().flat_map(|(name, value)| [name, value]);
            assert!(texts.chain(config.env.iter().flatten()).all(|text| text.len() <= 4096));
        }
    });
}

#[test]
fn of_a_bundle() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let place = root.path(format!("/run/containerd/io.containerd.runtime.v2.task/moby/{ID}"));
    fs::create_dir_all(&place).expect("creates");
    // Of another engine: no id leads there.
    let others = place.with_file_name("others");
    fs::create_dir_all(&others).expect("creates");
    fs::write(others.join("config.json"), r#"{"process":{"env":["SECRET=1"]}}"#).expect("writes");
    fuzz::run(HERE, "bundle", |text| {
        fs::write(place.join("config.json"), text).expect("writes");
        let Some(bundle) = Running::default().of_containerd(&root, DOCKERS, ID) else { return };
        let lengths = bundle
            .devices
            .iter()
            .map(|(path, _)| path.len())
            .chain(bundle.environment.iter().map(String::len));
        assert!(lengths.sum::<usize>() <= 3 * text.len());
        assert_eq!(Bundle::parse(text), Some(bundle));
    });
    fuzz::run(HERE, "bundle-id", |id| {
        let id = String::from_utf8_lossy(id);
        let bundle = Running::default().of_containerd(&root, DOCKERS, &id).unwrap_or_default();
        assert!(id == "others" || !bundle.environment.contains(&"SECRET=1".to_owned()), "{id:?}");
    });
}

#[test]
fn cmdline() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (root, process) = (Root::at(directory.path()), directory.path());
    fs::write(process.join("status"), "Name:\tconmon\nUid:\t7\t7\t7\t7\n").expect("writes");
    fuzz::run(HERE, "cmdline", |text| {
        // As it is, and as a monitor's arguments.
        let word: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
        let told =
            [&b"conmon\0-c\0"[..], &word, b"\0-b\0", &word, b"\0-address\0", &word, b"\0-namespace\0moby\0"];
        for text in [text, &told.concat()] {
            fs::write(process.join("cmdline"), text).expect("writes");
            let (user, texts) = texts_of(&root, process);
            assert!(user.is_none_or(|user| user == 7));
            // What is not UTF-8 is three bytes for one.
            assert!(texts.iter().all(|text| text.len() <= 3 * 4096));
        }
    });
}

/// Below its own control group a container makes groups of any name.
#[test]
fn inside_cgroup() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    fs::create_dir_all(root.path("/proc/7")).expect("creates");
    let json = format!(r#"{{"Id":"{ID}","Name":"a","State":{{"Pid":7}}}}"#);
    let container: Inspect = serde_json::from_str(&json).expect("is an answer");
    let engine = Engine { kind: Kind::Podman, user: None, socket: "/s".into(), presence: Presence::Ready };
    fuzz::run(HERE, "inside-cgroup", |below| {
        let below: Vec<u8> = below.iter().copied().filter(|byte| *byte != b'\n').collect();
        for (above, expected) in [
            (format!("0::/machine.slice/libpod-{ID}.scope/"), Owner::Engine),
            (
                format!("0::/system.slice/train.service/libpod-payload-{ID}/"),
                Owner::Unit { unit: "train.service".into() },
            ),
        ] {
            let text = [above.as_bytes(), &below, b"\n"].concat();
            fs::write(root.path("/proc/7/cgroup"), text).expect("writes");
            assert_eq!(owner::of(&root, &engine, &container, &Clients::default()), expected);
        }
    });
}

#[test]
fn proc_status() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fuzz::run(HERE, "proc-status", |text| {
        fs::write(directory.path().join("status"), text).expect("writes");
        if let Some(ids) = Ids::of(directory.path()) {
            assert!(ids.groups.len() <= text.len());
        }
    });
}
