// SPDX-License-Identifier: MIT
//! Compressed, as module files are.

use std::io::Write as _;

/// How a module may be compressed.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// Debian 13, Fedora, RHEL.
    Xz,
    /// Ubuntu, Arch, openSUSE.
    Zstd,
    /// Some others.
    Gzip,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 3] = [Form::Xz, Form::Zstd, Form::Gzip];
}

/// `content`, compressed.
///
/// # Panics
/// It cannot be.
pub fn packed(form: Form, content: &[u8]) -> Vec<u8> {
    match form {
        Form::Xz => {
            let options = lzma_rust2::XzOptions::with_preset(0);
            let mut packed = lzma_rust2::XzWriter::new(Vec::new(), options).expect("begins");
            packed.write_all(content).expect("compresses");
            packed.finish().expect("compresses")
        }
        Form::Zstd => ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest),
        Form::Gzip => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(content).expect("compresses");
            packed.finish().expect("compresses")
        }
    }
}
