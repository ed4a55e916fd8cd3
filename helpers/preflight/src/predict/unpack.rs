// SPDX-License-Identifier: MIT
//! Compressed module files, as libkmod takes them: known by their first bytes, whatever their name.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, Write};
use std::path::Path;

use lzma_rust2::XzReader;

/// No module is nearly as large: the largest of NVIDIA's have 150 MB.
const LARGEST: usize = 512 << 20;

/// What xz may take of memory for itself, in KiB: its strongest preset needs 65 MiB.
const XZ_MEMORY: u32 = 256 << 10;

/// What is in a module file.
pub(crate) enum Content {
    /// It is not compressed; and its length.
    Plain(File, u64),
    /// It was compressed.
    Unpacked(Vec<u8>),
    /// It is compressed, and cannot be unpacked.
    Damaged(Damage),
}

/// Why a compressed file cannot be unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Damage {
    /// It is not what was compressed.
    Corrupt,
    /// More comes out of it than any module has.
    TooLarge,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Corrupt => f.write_str("is corrupt or truncated: it cannot be unpacked"),
            Damage::TooLarge => write!(f, "is no module: unpacked it has more than {} MiB", LARGEST >> 20),
        }
    }
}

/// Reads the file `path`, as far as it has to be unpacked.
///
/// # Errors
/// It cannot be read.
pub(crate) fn content(path: &Path) -> io::Result<Content> {
    content_within(path, LARGEST)
}

fn content_within(path: &Path, largest: usize) -> io::Result<Content> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut magic = [0; 6];
    let mut known = 0;
    while known < magic.len() {
        match file.read(&mut magic[known..])? {
            0 => break,
            count => known += count,
        }
    }
    file.rewind()?;
    let mut whole = Bounded { bytes: Vec::new(), largest, is_full: false };
    let mut reader = BufReader::new(&file);
    let is_whole = match magic {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => frames(&mut reader, &mut whole).is_ok(),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            io::copy(&mut XzReader::new_mem_limit(&mut reader, true, XZ_MEMORY), &mut whole).is_ok()
        }
        [0x1f, 0x8b, ..] => io::copy(&mut flate2::read::MultiGzDecoder::new(&mut reader), &mut whole).is_ok(),
        _ => return Ok(Content::Plain(file, length)),
    };
    Ok(match is_whole {
        true => Content::Unpacked(whole.bytes),
        false if whole.is_full => Content::Damaged(Damage::TooLarge),
        false => Content::Damaged(Damage::Corrupt),
    })
}

/// Unpacks the frames of zstd, of which a file may have several.
fn frames(reader: &mut impl BufRead, whole: &mut Bounded) -> io::Result<()> {
    while !reader.fill_buf()?.is_empty() {
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut *reader).map_err(io::Error::other)?;
        io::copy(&mut decoder, whole)?;
    }
    Ok(())
}

/// Takes as many bytes as a module may have, and no more.
struct Bounded {
    bytes: Vec<u8>,
    largest: usize,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.largest {
            self.is_full = true;
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use golden::{Form, packed};
    use proptest::prelude::*;

    fn unpacked(content: &[u8]) -> Content {
        within(content, 1 << 20)
    }

    fn within(content: &[u8], largest: usize) -> Content {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("a.ko");
        std::fs::write(&path, content).expect("writes");
        content_within(&path, largest).expect("reads")
    }

    /// `printf hello | xz --check=crc32 --lzma2=dict=1MiB`, `| zstd`, `| gzip`: what the kernel's own build
    /// and DKMS use, made by the real tools.
    const BY_TOOLS: [&[u8]; 4] = [XZ, XZ_OF_PROGRAMS, ZSTD, GZIP];
    const XZ: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21, 0x01, 0x10,
        0x00, 0x00, 0x00, 0xa8, 0x70, 0x8e, 0x86, 0x01, 0x00, 0x05, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x0a, 0x00,
        0x00, 0x00, 0x20, 0x30, 0x3a, 0x36, 0x00, 0x01, 0x1a, 0x06, 0xc5, 0xea, 0xc8, 0x79, 0x90, 0x42, 0x99,
        0x0d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
    ];
    /// `printf hello | xz --check=sha256 --x86 --lzma2=dict=1MiB`.
    const XZ_OF_PROGRAMS: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x0a, 0xe1, 0xfb, 0x0c, 0xa1, 0x02, 0x01, 0x04, 0x00, 0x21,
        0x01, 0x10, 0x00, 0x8b, 0x21, 0x6f, 0x49, 0x01, 0x00, 0x05, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x0a, 0x00,
        0x00, 0x00, 0x58, 0x91, 0xb5, 0xb5, 0x22, 0xd5, 0xdf, 0x08, 0x6d, 0x0f, 0xf0, 0xb1, 0x10, 0xfb, 0xd9,
        0xd2, 0x1b, 0xb4, 0xfc, 0x71, 0x63, 0xaf, 0x34, 0xd0, 0x82, 0x86, 0xa2, 0xe8, 0x46, 0xf6, 0xbe, 0x03,
        0x00, 0x01, 0x36, 0x06, 0x6b, 0x81, 0xf9, 0x40, 0x18, 0x9b, 0x4b, 0x9a, 0x01, 0x00, 0x00, 0x00, 0x00,
        0x0a, 0x59, 0x5a,
    ];
    const ZSTD: &[u8] = &[
        0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58, 0x31, 0x00, 0x00, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x0a, 0x53, 0x88,
        0xbd, 0x91,
    ];
    const GZIP: &[u8] = &[
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0xe7, 0x02,
        0x00, 0x20, 0x30, 0x3a, 0x36, 0x06, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn what_the_tools_wrote_is_read() {
        for packed in BY_TOOLS {
            assert!(matches!(unpacked(packed), Content::Unpacked(bytes) if bytes == b"hello\n"));
            for cut in 6..packed.len() {
                assert!(matches!(unpacked(&packed[..cut]), Content::Damaged(Damage::Corrupt)), "{cut}");
            }
        }
        assert!(matches!(unpacked(b"\x7fELF"), Content::Plain(_, 4)));
        assert!(matches!(unpacked(b""), Content::Plain(_, 0)));
    }

    #[test]
    fn what_comes_in_several_parts_is_read_to_its_end() {
        for form in Form::ALL {
            let parts = [packed(form, b"hello"), packed(form, b" there")].concat();
            assert!(
                matches!(unpacked(&parts), Content::Unpacked(bytes) if bytes == b"hello there"),
                "{form:?}"
            );
            let cut = unpacked(&parts[..parts.len() - 3]);
            assert!(matches!(cut, Content::Damaged(Damage::Corrupt)), "{form:?}");
        }
    }

    #[test]
    fn no_file_takes_all_memory() {
        for form in Form::ALL {
            let bomb = packed(form, &[0; 100_001]);
            assert!(matches!(within(&bomb, 100_001), Content::Unpacked(_)), "{form:?}");
            assert!(matches!(within(&bomb, 100_000), Content::Damaged(Damage::TooLarge)), "{form:?}");
        }
    }

    proptest! {
        #[test]
        fn any_damage_is_read(form in 0..3usize, at in 0..200usize, by in any::<u8>()) {
            let mut packed = packed(Form::ALL[form], &[7; 4000]);
            let at = at % packed.len();
            packed[at] = by;
            unpacked(&packed);
        }
    }
}
