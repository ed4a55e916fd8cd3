// SPDX-License-Identifier: MIT
//! What a manager can say over its own socket. See the crate `fuzz`.

use std::io::ErrorKind;

use crate::relay::relay;

#[test]
fn messages() {
    fuzz::run(env!("CARGO_MANIFEST_DIR"), "messages", |said| {
        let mut received = Vec::new();
        let end = relay(said, &mut received).expect_err("it ends");
        assert!(matches!(end.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData), "{end}");
        assert!(received.len() <= said.len());
        // One byte of each sender, and nothing else.
        for (said, received) in said.iter().zip(&received) {
            assert!(said == received || *received == b':');
        }
    });
}
