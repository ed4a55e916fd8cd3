// SPDX-License-Identifier: MIT
//! Whether the driver is as a run that is over should have left it.

use anyhow::Result;
use ledger::Run;
use step::Root;

use crate::gate;
use crate::loaded::{State, loaded};

/// What is not as it should be after `run`: after its commit the gate counts, before it also that the modules
/// are the old ones. Modules of another boot do not count: that boot loaded its own.
///
/// # Errors
/// `/sys/module` or the gate cannot be looked at.
pub fn differences(root: &Root, run: &Run, boot: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if gate::is_shut(root)? {
        found.push(format!("the gate is still shut: remove {}", gate::FILE));
    }
    if run.committed || run.boot != boot {
        return Ok(found);
    }
    for before in &run.snapshot.modules {
        let version = |module: &ledger::Module| module.version.clone().unwrap_or_else(|| "unknown".into());
        match loaded(root, &before.name)? {
            None => found.push(format!("{} is not loaded", before.name)),
            Some(now) if now.state != State::Live => found.extend(now.trouble()),
            Some(now) if now.module.version != before.version => found.push(format!(
                "{} is loaded in version {}, it was {}",
                before.name,
                version(&now.module),
                version(before)
            )),
            Some(_) => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ledger::{Event, Module, Record, Snapshot};

    use super::*;

    #[test]
    fn only_the_old_version_and_live_is_as_it_was() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let module = Module {
            name: "nvidia".into(),
            version: Some("535.1".into()),
            srcversion: None,
            parameters: Default::default(),
        };
        let record = |event| Record { v: 1, run: "r".into(), boot: "b".into(), realtime_usec: 1, event };
        let snapshot = Box::new(Snapshot { modules: vec![module], ..Snapshot::default() });
        let opened = record(Event::Opened { snapshot });
        let run = Run::from_records(std::slice::from_ref(&opened)).expect("adds up");
        let committed = Run::from_records(&[opened, record(Event::Committed)]).expect("adds up");
        let found = |run: &Run, boot| differences(&root, run, boot).expect("looks").join("; ");
        assert_eq!(found(&run, "b"), "nvidia is not loaded");
        assert_eq!(found(&run, "another"), "");
        assert_eq!(found(&committed, "b"), "");
        let path = root.path("/sys/module/nvidia");
        fs::create_dir_all(path.join("holders")).expect("creates");
        fs::write(path.join("refcnt"), "0\n").expect("writes");
        for (version, state, expected) in [
            ("535.1", "live", ""),
            ("550.1", "live", "nvidia is loaded in version 550.1, it was 535.1"),
            (
                "535.1",
                "going",
                "nvidia is on its way out of the kernel and does not get there: reboot the machine",
            ),
            (
                "535.1",
                "coming",
                "nvidia is on its way into the kernel and does not get there: reboot the machine",
            ),
        ] {
            fs::write(path.join("version"), format!("{version}\n")).expect("writes");
            fs::write(path.join("initstate"), format!("{state}\n")).expect("writes");
            assert_eq!(found(&run, "b"), expected);
        }
    }
}
