// SPDX-License-Identifier: MIT
//! What processes can have the driver write, and logs of any machine. See the crate `fuzz`.

use crate::{Event, Line, classify, parse, read_export, read_log};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn message() {
    fuzz::run(HERE, "message", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Some(event) = parse(&text) {
            let _ = classify::class(&event, None);
            fuzz::assert_at_most(16 * text.len() + 1024, &event);
        }
        if let Some(line) = Line::read(&text) {
            fuzz::assert_at_most(16 * text.len() + 1024, &line);
            assert!(line.event.to_string().len() <= 4 * text.len() + 256);
        }
        // The name of a process, as the driver writes it: 15 bytes of any kind.
        let name: String = text.chars().filter(|c| *c != '\0').scan(15, within).collect();
        let Some(Event::Xid(xid)) =
            parse(&format!("NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name={name}, channel 0x1"))
        else {
            panic!("{name:?} is not read")
        };
        assert_eq!((xid.at.pci.bus, xid.xid), (0x3b, 31), "{name:?}");
    });
}

/// As many characters as have `left` bytes.
fn within(left: &mut usize, c: char) -> Option<char> {
    *left = left.checked_sub(c.len_utf8())?;
    Some(c)
}

#[test]
fn log() {
    fuzz::run(HERE, "log", |bytes| {
        let (mut last, mut length) = (0, 0);
        let lines = read_log(bytes, |line| {
            let number = line.line_number.expect("has a number");
            assert!(number >= last, "{number} after {last}");
            last = number;
            length += line.event.to_string().len();
        });
        assert!(last <= lines.expect("is read"));
        assert!(length <= 4 * bytes.len() + 256 * (1 + last));
    });
}

#[test]
fn export() {
    fuzz::run(HERE, "export", |bytes| {
        let mut length = 0;
        // An end in the middle of an entry is an error.
        let _ = read_export(bytes, |entry| length += entry.message().len() + entry.cursor().len());
        assert!(length <= 3 * bytes.len());
    });
}
