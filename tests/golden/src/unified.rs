// SPDX-License-Identifier: MIT
//! A unified kernel image, as far as anybody reads it here: a program for UEFI with two sections.

/// Such an image for the kernel `release`, with the initramfs `initrd`.
pub fn unified(release: &str, initrd: &[u8]) -> Vec<u8> {
    const ALIGNMENT: usize = 512;
    let sections = [(".uname", release.as_bytes()), (".initrd", initrd)];
    let mut image = vec![0; 64];
    image[..2].copy_from_slice(b"MZ");
    image[60] = 64;
    image.extend(b"PE\0\0");
    image.extend(0x8664u16.to_le_bytes());
    image.extend(2u16.to_le_bytes());
    image.extend([0; 12]);
    image.extend(240u16.to_le_bytes()); // the length of what is optional
    image.extend(0x22u16.to_le_bytes());
    let optional = image.len();
    image.resize(optional + 240, 0);
    image[optional..optional + 2].copy_from_slice(&0x20bu16.to_le_bytes()); // PE32+
    image[optional + 108] = 16; // so many directories
    let mut start = ALIGNMENT;
    for (name, data) in sections {
        let mut header = [0; 40];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let length = data.len() as u32;
        for (at, value) in [(8, length), (12, start as u32), (16, length), (20, start as u32)] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        image.extend(header);
        start = (start + data.len()).next_multiple_of(ALIGNMENT);
    }
    let mut start = ALIGNMENT;
    for (_, data) in sections {
        image.resize(start, 0);
        image.extend(data);
        start = (start + data.len()).next_multiple_of(ALIGNMENT);
    }
    image
}
