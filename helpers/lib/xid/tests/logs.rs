// SPDX-License-Identifier: MIT
//! Logs in the forms that machines have them: what of each is the driver's, and what is a program's own.
//! Each names where it is from; those of our own construction are marked as such.

use serde_json::Value;

#[test]
fn every_log_is_read_as_it_says() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for sample in include_str!("logs.jsonl").lines() {
        count += 1;
        let sample: Value = serde_json::from_str(sample).expect("a sample is JSON");
        let log = sample["line"].as_str().expect("a sample has a log");
        let expect = sample["expect"].as_object().expect("a sample says what is in it");
        let mut read = Vec::new();
        xid::read_log(log.as_bytes(), |line| {
            read.push(serde_json::to_value(line).expect("a line can be encoded"));
        })
        .expect("reads");
        let is_right = match read.as_slice() {
            [] => expect["kind"] == "none",
            [read] => expect.iter().all(|(field, expected)| read.get(field) == Some(expected)),
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{}\n{log}\nread as {read:?}", sample["source"]));
        }
    }
    assert_eq!(count, 276);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n\n"));
}
