// SPDX-License-Identifier: MIT
//! Reading an initramfs: cpio archives one after the other, zeros between them, and the last of them
//! compressed as a whole (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, BufReader, Cursor, Read};

use anyhow::{Context, Result, bail};
use cpio::NewcReader;
use lzma_rust2::{LzmaReader, XzReader};

/// An archive may be made of so many: early microcode, ACPI tables, modules, the rest.
const MOST: usize = 64;

/// What xz and lzma may take of memory for themselves, in KiB: their strongest presets need 65 MiB.
const MEMORY: u32 = 256 << 10;

/// Calls `file` with the path and the content of each regular file whose path is `wanted`.
///
/// # Errors
/// The archive is damaged, or compressed in a way that is not known here.
pub(crate) fn read(
    archive: impl Read + 'static,
    wanted: &dyn Fn(&str) -> bool,
    file: &mut dyn FnMut(&str, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut input: Box<dyn Read> = Box::new(BufReader::with_capacity(1 << 16, archive));
    for _ in 0..MOST {
        let Some(magic) = next_magic(&mut input).context("read the initramfs")? else { return Ok(()) };
        let rest: Box<dyn Read> = Box::new(Cursor::new(magic).chain(input));
        input = match &magic {
            b"070701" | b"070702" => read_one(rest, wanted, file)?,
            [0x1f, 0x8b, ..] => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(rest))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let decoder = ruzstd::decoding::StreamingDecoder::new(rest)
                    .map_err(|error| anyhow::anyhow!("zstd: {error}"))?;
                Box::new(BufReader::new(decoder))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                Box::new(BufReader::new(XzReader::new_mem_limit(rest, false, MEMORY)))
            }
            // Five bytes of properties, and eight of a length that may be unknown.
            [0x5d, 0, ..] => {
                let decoder = LzmaReader::new_mem_limit(rest, MEMORY, None).context("lzma")?;
                Box::new(BufReader::new(decoder))
            }
            // The legacy frame: the kernel reads no other.
            [0x02, 0x21, 0x4c, 0x18, ..] => {
                Box::new(BufReader::new(lz4_flex::frame::FrameDecoder::new(rest)))
            }
            [b'B', b'Z', b'h', ..] => bail!("it is compressed with bzip2, which is not read here"),
            [0x89, b'L', b'Z', b'O', ..] => bail!("it is compressed with lzo, which is not read here"),
            _ => bail!("it is no initramfs: something begins with {magic:02x?}"),
        };
    }
    bail!("it is made of more than {MOST} archives")
}

/// Reads one cpio archive to its end, and returns what comes after it.
fn read_one(
    mut input: Box<dyn Read>,
    wanted: &dyn Fn(&str) -> bool,
    file: &mut dyn FnMut(&str, &mut dyn Read) -> Result<()>,
) -> Result<Box<dyn Read>> {
    const REGULAR: u32 = 0o100_000;
    loop {
        let mut reader = NewcReader::new(input).context("read the initramfs")?;
        let entry = reader.entry();
        if entry.is_trailer() {
            return reader.finish().context("read the initramfs");
        }
        let path = entry.name().trim_start_matches("./").trim_start_matches('/').to_owned();
        if entry.mode() & 0o170_000 == REGULAR && wanted(&path) {
            file(&path, &mut reader)?;
        }
        input = reader.finish().with_context(|| format!("read {path} in the initramfs"))?;
    }
}

/// The first bytes after any zeros; none at the end.
fn next_magic(input: &mut dyn Read) -> io::Result<Option<[u8; 6]>> {
    let mut magic = [0; 6];
    while magic[0] == 0 {
        if input.read(&mut magic[..1])? == 0 {
            return Ok(None);
        }
    }
    input.read_exact(&mut magic[1..])?;
    Ok(Some(magic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use golden::{Form, packed};
    use std::io::Write;

    fn cpio_of(files: &[(&str, &str)]) -> Vec<u8> {
        let inputs = files
            .iter()
            .map(|(path, text)| (cpio::NewcBuilder::new(path).mode(0o100_644), Cursor::new(text.as_bytes())));
        cpio::write_cpio(inputs, Vec::new()).expect("writes")
    }

    fn names_in(archive: Vec<u8>) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        read(Cursor::new(archive), &|path| path.ends_with(".ko"), &mut |path, content| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            found.push((path.to_owned(), text));
            Ok(())
        })?;
        Ok(found)
    }

    /// Early microcode, zeros, then the rest in `compressed`.
    fn initramfs(compressed: &[u8]) -> Vec<u8> {
        let mut archive = cpio_of(&[("kernel/x86/microcode/GenuineIntel.bin", "m"), ("early.ko", "e")]);
        archive.resize(archive.len().next_multiple_of(512) + 512, 0);
        archive.extend(compressed);
        archive
    }

    #[test]
    fn every_archive_in_the_file_is_read() {
        let main = cpio_of(&[("./lib/a.ko", "aaa"), ("lib/b", "bbb"), ("lib/c.ko", "c")]);
        let expected: Vec<(String, String)> = [("early.ko", "e"), ("lib/a.ko", "aaa"), ("lib/c.ko", "c")]
            .map(|(a, b)| (a.into(), b.into()))
            .into();
        assert_eq!(names_in(initramfs(&main)).expect("plain"), expected);

        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&main).expect("writes");
        assert_eq!(names_in(initramfs(&gzip.finish().expect("ends"))).expect("gzip"), expected);

        assert_eq!(names_in(initramfs(&packed(Form::Xz, &main))).expect("xz"), expected);

        let options = lzma_rust2::LzmaOptions::with_preset(0);
        let mut lzma = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).expect("begins");
        lzma.write_all(&main).expect("compresses");
        assert_eq!(names_in(initramfs(&lzma.finish().expect("ends"))).expect("lzma"), expected);

        let zstd =
            ruzstd::encoding::compress_to_vec(main.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        assert_eq!(names_in(initramfs(&zstd)).expect("zstd"), expected);

        // As `lz4 -l` has it: a magic number, and blocks with their length before them.
        let block = lz4_flex::block::compress(&main);
        let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
        lz4.extend(u32::try_from(block.len()).expect("is short").to_le_bytes());
        lz4.extend(block);
        assert_eq!(names_in(initramfs(&lz4)).expect("lz4"), expected);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (bytes, word) in [
            (&b"BZh91AY"[..], "bzip2"),
            (b"\x89LZO\0\r", "lzo"),
            (b"#!/bin/sh", "no initramfs"),
            (b"070701nonsense", "read the initramfs"),
            (b"\x28\xb5\x2f\xfd\0\0\0\0", "read the initramfs"),
        ] {
            let error = format!("{:#}", names_in(bytes.to_vec()).expect_err("must refuse"));
            assert!(error.contains(word), "{error}");
        }
        let cut = cpio_of(&[("a.ko", "0123456789")]);
        assert!(names_in(cut[..120].to_vec()).is_err());
        assert!(names_in(Vec::new()).expect("nothing is nothing").is_empty());
    }
}
