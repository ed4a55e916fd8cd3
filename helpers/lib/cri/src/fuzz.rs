// SPDX-License-Identifier: MIT
//! What a runtime can answer. See the crate `fuzz`.

use prost::Message;

use crate::messages::{Containers, PodSandboxes};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn read<T: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = T::decode(bytes) {
        // What is there once is not more than once in the answer.
        assert!(message.encoded_len() <= 2 * bytes.len() + 16, "{}", message.encoded_len());
        assert_eq!(T::decode(message.encode_to_vec().as_slice()), Ok(message));
    }
}

#[test]
fn containers() {
    fuzz::run(HERE, "containers", read::<Containers>);
}

#[test]
fn sandboxes() {
    fuzz::run(HERE, "sandboxes", read::<PodSandboxes>);
}
