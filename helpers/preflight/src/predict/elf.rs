// SPDX-License-Identifier: MIT
//! What is wrong with a module file that cannot be read as one, and which build a file is of.

use std::fmt;
use std::io;
use std::path::Path;

use object::read::{File, ReadCache};
use object::{Architecture, FileKind, Object, ObjectKind, ObjectSection, ReadRef};

use super::unpack::{Content, Damage, content};

/// Why a file is no module for this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It has no content.
    Empty,
    /// It is something else.
    NotElf,
    /// It is a program or a library.
    NoModule,
    /// It is for another processor.
    Architecture(String),
    /// Its end is missing.
    CutOff,
    /// It is compressed, and cannot be unpacked.
    Packed(Damage),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Empty => f.write_str("is empty"),
            Flaw::NotElf => f.write_str("is no ELF file"),
            Flaw::NoModule => f.write_str("is an ELF file, but no kernel module"),
            Flaw::Architecture(of) => write!(f, "is for another processor ({of})"),
            Flaw::CutOff => f.write_str("is truncated: its end is missing"),
            Flaw::Packed(damage) => write!(f, "{damage}"),
        }
    }
}

/// What this program, and with it the kernel, is built for; none where that is not distinguished here.
const fn own() -> Option<Architecture> {
    if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
        Some(Architecture::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Architecture::Aarch64)
    } else {
        None
    }
}

/// What is wrong with the file `path`, if anything.
///
/// # Errors
/// It cannot be read.
pub(crate) fn flaw(path: &Path) -> io::Result<Option<Flaw>> {
    Ok(match content(path)? {
        Content::Plain(file, 0) => {
            drop(file);
            Some(Flaw::Empty)
        }
        Content::Plain(file, length) => flaw_in(&ReadCache::new(file), length),
        Content::Unpacked(bytes) => flaw_in(bytes.as_slice(), bytes.len() as u64),
        Content::Damaged(damage) => Some(Flaw::Packed(damage)),
    })
}

fn flaw_in<'a>(content: impl ReadRef<'a>, length: u64) -> Option<Flaw> {
    match FileKind::parse(content) {
        Ok(FileKind::Elf32 | FileKind::Elf64) => match File::parse(content) {
            Ok(elf) => of_elf(&elf, length),
            Err(_) => Some(Flaw::CutOff),
        },
        _ => Some(Flaw::NotElf),
    }
}

fn of_elf<'a>(elf: &impl Object<'a>, length: u64) -> Option<Flaw> {
    if own().is_some_and(|own| own != elf.architecture()) {
        return Some(Flaw::Architecture(format!("{:?}", elf.architecture())));
    }
    if elf.kind() != ObjectKind::Relocatable {
        return Some(Flaw::NoModule);
    }
    // As the kernel's elf_validity_check() does.
    let ends = |(offset, size): (u64, u64)| offset.checked_add(size);
    let outside = |range| ends(range).is_none_or(|end| end > length);
    elf.sections().any(|section| section.file_range().is_some_and(outside)).then_some(Flaw::CutOff)
}

/// The build id of the file `path`, where it has one.
///
/// # Errors
/// It cannot be read.
pub(crate) fn build_id(path: &Path) -> io::Result<Option<Vec<u8>>> {
    Ok(match content(path)? {
        Content::Plain(file, _) => build_id_in(&ReadCache::new(file)),
        Content::Unpacked(bytes) => build_id_in(bytes.as_slice()),
        Content::Damaged(_) => None,
    })
}

fn build_id_in<'a>(content: impl ReadRef<'a>) -> Option<Vec<u8>> {
    File::parse(content).ok()?.build_id().ok().flatten().map(<[u8]>::to_vec)
}

/// The build id in the content of `/sys/module/NAME/notes/.note.gnu.build-id`: a note of ELF, with the
/// lengths of name and value, its kind, the name, and the value.
pub(crate) fn build_id_of_note(note: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| -> Option<usize> {
        let bytes = note.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()
    };
    let name = number(0)?.checked_next_multiple_of(4)?;
    let start = name.checked_add(12)?;
    note.get(start..start.checked_add(number(4)?)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use golden::{Form, packed};
    use proptest::prelude::*;

    /// The smallest ELF object file that has a section: the one that has the sections' names.
    fn module() -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        elf.extend(1u16.to_le_bytes()); // ET_REL
        elf.extend(if cfg!(target_arch = "aarch64") { 183u16 } else { 62 }.to_le_bytes());
        elf.extend(1u32.to_le_bytes());
        elf.extend([0; 16]); // no entry, no program headers
        elf.extend(80u64.to_le_bytes()); // where the section headers are
        elf.extend([0; 4]);
        for number in [64u16, 0, 0, 64, 2, 1] {
            elf.extend(number.to_le_bytes());
        }
        elf.extend(b"\0.shstrtab\0\0\0\0\0\0");
        elf.extend([0; 64]);
        elf.extend(1u32.to_le_bytes());
        elf.extend(3u32.to_le_bytes()); // SHT_STRTAB
        elf.extend([0; 16]);
        elf.extend(64u64.to_le_bytes());
        elf.extend(11u64.to_le_bytes());
        elf.extend([0; 8]);
        elf.extend(1u64.to_le_bytes());
        elf.extend([0; 8]);
        elf
    }

    fn flaw_of(content: &[u8]) -> Option<Flaw> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("a.ko");
        fs::write(&path, content).expect("writes");
        assert!(build_id(&path).is_ok());
        flaw(&path).expect("reads")
    }

    #[test]
    fn what_is_wrong_is_reported() {
        let good = module();
        assert_eq!(flaw_of(&good), None);
        assert_eq!(flaw_of(b""), Some(Flaw::Empty));
        assert_eq!(flaw_of(b"#!/bin/sh\n"), Some(Flaw::NotElf));
        assert_eq!(flaw_of(&good[..good.len() - 1]), Some(Flaw::CutOff));
        let mut program = good.clone();
        program[16] = 2;
        assert_eq!(flaw_of(&program), Some(Flaw::NoModule));
        let mut other = good.clone();
        other[18] = 243;
        assert_eq!(flaw_of(&other), Some(Flaw::Architecture("Riscv64".into())));
        let mut beyond = good;
        let size = 80 + 64 + 32;
        beyond[size..size + 8].copy_from_slice(&[0xff; 8]);
        assert_eq!(flaw_of(&beyond), Some(Flaw::CutOff));
    }

    #[test]
    fn a_compressed_file_is_judged_as_a_plain_one() {
        let good = module();
        let mut other = good.clone();
        other[18] = 243;
        for form in Form::ALL {
            let flaw_of = |content: &[u8]| flaw_of(&packed(form, content));
            assert_eq!(flaw_of(&good), None, "{form:?}");
            assert_eq!(flaw_of(&good[..good.len() - 1]), Some(Flaw::CutOff), "{form:?}");
            assert_eq!(flaw_of(&other), Some(Flaw::Architecture("Riscv64".into())), "{form:?}");
            assert_eq!(flaw_of(b"text"), Some(Flaw::NotElf), "{form:?}");
            let whole = packed(form, &good);
            for cut in [8, whole.len() / 2, whole.len() - 5] {
                let flaw = super::tests::flaw_of(&whole[..cut]);
                assert!(matches!(flaw, Some(Flaw::Packed(_))), "{form:?} cut off at {cut}: {flaw:?}");
            }
        }
    }

    #[test]
    fn a_note_has_its_value_behind_its_name() {
        let note: Vec<u8> = [4u32, 3, 3].into_iter().flat_map(u32::to_ne_bytes).chain(*b"GNU\0abc").collect();
        assert_eq!(build_id_of_note(&note), Some(&b"abc"[..]));
        assert_eq!(build_id_of_note(&note[..note.len() - 1]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(note in proptest::collection::vec(any::<u8>(), 0..64)) {
            build_id_of_note(&note);
        }

        #[test]
        fn any_damage_is_read(at in 0..208usize, by in any::<u8>(), length in 0..208usize) {
            let mut elf = module();
            elf[at] = by;
            elf.truncate(length);
            flaw_of(&elf);
        }
    }
}
