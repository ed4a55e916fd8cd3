// SPDX-License-Identifier: MIT
//! What others may do to the slots' folder, and what not.

use std::os::unix::fs::PermissionsExt;

use ledger::{Ledger, Step};
use step::Context;

use super::*;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets");
}

#[test]
fn a_lock_on_the_folder_or_on_a_slot_is_in_nobodys_way() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    machine(&root);
    let slot = saved(&root);
    let open = |path: &Path| fs::File::open(path).expect("everybody may read it");
    let held = [root.path(DIRECTORY), slot.directory.clone(), slot.directory.join("manifest.json")]
        .map(|path| open(&path));
    held.iter().for_each(|file| file.lock().expect("locks"));
    saved(&root);
    let context = Context { step: Step::InstallDriver, root, ledger: Ledger::new(directory.path(), "b") };
    let lock = lock_for_run(&context).expect("does not wait");
    let mode = lock.metadata().expect("is open").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others cannot open it, and so not lock it");
}

#[test]
fn a_slot_that_others_can_write_is_not_used() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    machine(&root);
    let slot = saved(&root);
    let file = slot.directory.join(slot.manifest.regular().next().expect("has files").stored_as());
    mode(&file, 0o646);
    assert!(slot.corrupt_files().iter().any(|what| what.contains("mode 0646")), "{:?}", slot.corrupt_files());
    mode(&file, 0o644);
    assert_eq!(slot.corrupt_files(), Vec::<String>::new());
    for path in [slot.directory.join("manifest.json"), slot.directory.clone()] {
        let good = fs::metadata(&path).expect("is there").permissions().mode() & 0o7777;
        mode(&path, 0o777);
        let (found, unusable) = all(&root).expect("reads");
        assert!(found.is_empty() && unusable[0].reason.contains("mode 0777"), "{unusable:?}");
        mode(&path, good);
    }
    mode(&root.path(DIRECTORY), 0o777);
    assert!(untrusted(&root).is_some_and(|found| found.what().contains("mode 0777")));
    let error = format!("{:#}", lock_to_save(&root).expect_err("is refused"));
    assert!(error.contains("mode 0777") && error.contains("chmod go-w"), "{error}");
}
