// SPDX-License-Identifier: MIT
//! Texts of users on their way out, and the files that are read before anything else. See the crate `fuzz`.

use std::fs;

use crate::guard::uid_of;
use crate::text::{clean, json, line, status};
use crate::{Config, Root, RunRequest};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn text() {
    fuzz::run(HERE, "text", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let cleaned = clean(&text);
        fuzz::assert_plain(&cleaned);
        assert_eq!(clean(&cleaned), cleaned);
        for (cut, most) in [(line(&text), 16 << 10), (status(&text), 1024)] {
            fuzz::assert_plain(&cut);
            assert!(cut.len() <= most + '…'.len_utf8() && cut.len() <= cleaned.len());
        }
        let value = serde_json::json!({ "text": text, text.clone(): [1] });
        let shown = json(&value).expect("is encoded");
        assert!(shown.split('\n').all(fuzz::is_plain), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("is read"), value);
    });
}

#[test]
fn config() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let folder = root.path("/etc/nvidia-reload/conf.d");
    fs::create_dir_all(&folder).expect("creates");
    fuzz::run(HERE, "config", |text| {
        fs::write(folder.join("50-a.toml"), text).expect("writes");
        match Config::load(&root) {
            Ok(config) => {
                // What was checked is still right when it is read again.
                fs::write(folder.join("50-a.toml"), toml::to_string(&config).expect("is encoded"))
                    .expect("writes");
                assert_eq!(Config::load(&root).expect("is read"), config);
                let times = [config.processes.grace, config.units.stop_timeout, config.verify.smoke_timeout];
                assert!(times.iter().all(|seconds| (1..=600).contains(seconds)));
            }
            Err(error) => {
                let text = format!("{error:#}");
                assert!(text.contains("50-a.toml") || text.contains("verify.smoke"), "{text}");
            }
        }
    });
}

#[test]
fn run_request() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    let folder = root.path("/run/nvidia-reload");
    fs::create_dir_all(&folder).expect("creates");
    fuzz::run(HERE, "run-request", |text| {
        fs::write(folder.join("run-request.json"), text).expect("writes");
        let read = RunRequest::read(&root);
        // It is for one run, whatever it says.
        let taken = RunRequest::take(&root);
        assert!(!folder.join("run-request.json").exists());
        assert_eq!(read.is_ok(), taken.is_ok());
        if let Ok(asked) = taken
            && asked.ask(&root).expect("is asked for")
        {
            assert_eq!(RunRequest::read(&root).expect("is read"), Some(asked));
        }
    });
}

#[test]
fn passwd() {
    fuzz::run(HERE, "passwd", |text| {
        let text = String::from_utf8_lossy(text);
        assert!(uid_of(&text, "nobody-there").is_none());
        if let Some(uid) = uid_of(&text, "ada") {
            assert!(text.contains("ada:") && (text.contains(&uid.to_string()) || text.contains('+')));
        }
    });
}
