// SPDX-License-Identifier: MIT
//! Lines that drivers wrote, and what is to be read in them. Each sample names where it is from.

use serde_json::Value;
use xid::Line;

fn samples() -> Vec<Value> {
    include_str!("samples.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a sample is JSON"))
        .collect()
}

#[test]
fn every_sample_is_read_as_it_says() {
    let samples = samples();
    assert_eq!(samples.len(), 70);
    for sample in samples {
        let line = sample["line"].as_str().expect("a sample has a line");
        let expect = sample["expect"].as_object().expect("a sample says what is in it");
        let read = Line::read(line).map(|line| serde_json::to_value(line).expect("a line can be encoded"));
        if expect["kind"] == "none" {
            assert_eq!(read, None, "{line}");
            continue;
        }
        let read = read.unwrap_or_else(|| panic!("not recognised: {line}"));
        for (field, expected) in expect {
            assert_eq!(read.get(field), Some(expected), "{field} of {line}: {read:#}");
        }
    }
}

#[test]
fn a_class_is_not_made_up() {
    for sample in samples() {
        let expect = &sample["expect"];
        // Where a sample says nothing of a class, the message only tells: except the harmless SXid, and GPUs
        // that do not start or were not taken, which are judged with what NVML and the bus show.
        let kind = expect["kind"].as_str().unwrap_or_default();
        if expect["cls"].is_null() && !["none", "sxid", "rm_init_failed", "probe_failed"].contains(&kind) {
            let line = Line::read(sample["line"].as_str().expect("a line")).expect("recognised");
            assert_eq!(line.cls, None, "{expect}");
        }
    }
}
