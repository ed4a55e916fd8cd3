// SPDX-License-Identifier: MIT
//! What programs can write to the kernel's log, and what is saved of it. See the crate `fuzz`.

use std::fs;

use step::Root;

use crate::kmsg;
use crate::memory::Memory;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn log_of_the_kernel() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("kmsg");
    fuzz::run(HERE, "kmsg", |text| {
        fs::write(&path, text).expect("writes");
        let ring = kmsg::read(&path).expect("reads");
        let lines = String::from_utf8_lossy(text).lines().count();
        assert!(ring.messages.len() <= lines && ring.first.is_some() == ring.last.is_some());
        let length: usize = ring.messages.iter().map(|message| message.text.len()).sum();
        // What is not UTF-8 is three bytes for one.
        assert!(length <= 3 * text.len());
    });
}

/// What is not the kernel's own does not count, however it looks.
#[test]
fn written_by_a_program() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("kmsg");
    fuzz::run(HERE, "written-by-a-program", |text| {
        // The kernel writes what is not printable, and the backslash, as `\x0a`.
        let escaped: String = text
            .iter()
            .map(|byte| match byte {
                b'\\' => "\\x5c".to_owned(),
                b' '..=b'~' => char::from(*byte).to_string(),
                byte => format!("\\x{byte:02x}"),
            })
            .collect();
        fs::write(&path, format!("12,1,500,-;{escaped}\n SUBSYSTEM=pci\n30,2,600,-,caller=T1;{escaped}\n"))
            .expect("writes");
        let ring = kmsg::read(&path).expect("reads");
        assert_eq!((ring.messages.len(), ring.last), (0, Some(600)));
    });
}

#[test]
fn memory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Root::at(directory.path());
    fs::create_dir_all(root.path("/run/nvidia-reload")).expect("creates");
    fuzz::run(HERE, "memory", |text| {
        fs::write(root.path("/run/nvidia-reload/messages.json"), text).expect("writes");
        let memory = Memory::load(&root, "01234567-89ab-cdef-0123-456789abcdef").expect("reads");
        assert!(
            memory.messages().len() <= memory.saved.len() && memory.resets().len() <= memory.resets.len()
        );
        if memory != Memory::default() {
            assert_eq!(
                (memory.schema.as_str(), memory.boot.len()),
                ("nvidia-reload.memory/1", 36),
                "of this boot"
            );
            memory.save(&root).expect("writes");
            let again = Memory::load(&root, &memory.boot).expect("reads");
            assert_eq!(again, memory);
        }
    });
}
