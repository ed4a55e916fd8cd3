// SPDX-License-Identifier: MIT
//! What may lie where the request is kept. See the crate `fuzz`.

use std::fs;

use step::Root;

use crate::{State, ask, read};

#[test]
fn request() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
    fuzz::run(env!("CARGO_MANIFEST_DIR"), "request", |text| {
        fs::write(root.path("/run/nvidia-reload/request.json"), text).expect("writes");
        let known = read(&root).ok().flatten();
        // Whatever is there, a request can be made.
        let asked = ask(&root, "fuzz").expect("asks");
        assert_eq!((read(&root).expect("reads"), asked.state), (Some(asked.clone()), State::Queued));
        let reasons = known.map(|known| known.reasons).unwrap_or_default();
        assert!(reasons.iter().chain([&"fuzz".to_owned()]).all(|reason| asked.reasons.contains(reason)));
    });
}
